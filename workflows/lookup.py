"""Lookup: answers clients, which have no database, from the registry: which workflow delivers an event, and its counts."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import LOOKUP, LookupInput, LookupResult, lookup
    from workflows.policies import LOOKUP_OPTIONS


@workflow.defn(name=LOOKUP)
class Lookup:
    @workflow.run
    async def run(self, request: LookupInput) -> LookupResult:
        return await workflow.execute_local_activity(lookup, request, **LOOKUP_OPTIONS)
