"""What Bellwire is compared with on the same server: a workflow that does nothing, and one with one activity that posts."""

from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    import aiohttp

QUEUE = "bare"


@workflow.defn
class Empty:
    """Starts and completes: the least that any publication can cost."""

    @workflow.run
    async def run(self) -> None:
        return


@workflow.defn
class PostOnce:
    """Posts by one activity: what a service would write that knows Temporal and has no Bellwire."""

    @workflow.run
    async def run(self, url: str, webhook_id: str, body: str) -> int:
        status: int = await workflow.execute_activity(
            "post", args=[url, webhook_id, body], result_type=int, start_to_close_timeout=timedelta(seconds=10)
        )
        return status


class Poster:
    """The activity of PostOnce, over one session as a careful service would have it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @activity.defn(name="post")
    async def post(self, url: str, webhook_id: str, body: str) -> int:
        async with self._session.post(url, data=body.encode(), headers={"webhook-id": webhook_id}) as response:
            return response.status
