"""Locate: answers a client that has no database which run delivers an event, and how the registry has it."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import LOCATE, Located, LocateInput, locate
    from workflows.policies import LOOKING_UP


@workflow.defn(name=LOCATE)
class Locate:
    @workflow.run
    async def run(self, given: LocateInput) -> Located:
        return await workflow.execute_local_activity(locate, given, **LOOKING_UP)
