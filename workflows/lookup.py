"""Locate: answers a client that has no database which run delivers an event, and how the registry has it."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import LOOKUP, LookupInput, LookupResult, lookup
    from workflows.policies import LOOKUP_OPTIONS


@workflow.defn(name=LOOKUP)
class Lookup:
    @workflow.run
    async def run(self, given: LookupInput) -> LookupResult:
        return await workflow.execute_local_activity(lookup, given, **LOOKUP_OPTIONS)
