"""What Bellwire is compared with on the same server: an empty workflow, and one with a single activity that posts."""

from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    import aiohttp

QUEUE = "bare"


@workflow.defn
class Empty:
    """Starts and completes: the minimum cost of any publication."""

    @workflow.run
    async def run(self) -> None:
        return


@workflow.defn
class PostOnce:
    """Posts in one activity: what a service with Temporal and without Bellwire would write."""

    @workflow.run
    async def run(self, url: str, webhook_id: str, body: str) -> int:
        status: int = await workflow.execute_activity(
            "post", args=[url, webhook_id, body], result_type=int, start_to_close_timeout=timedelta(seconds=10)
        )
        return status


class Poster:
    """The activity of PostOnce; all posts use one session."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @activity.defn(name="post")
    async def post(self, url: str, webhook_id: str, body: str) -> int:
        async with self._session.post(url, data=body.encode(), headers={"webhook-id": webhook_id}) as response:
            return response.status
