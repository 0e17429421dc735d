"""RegisterHandlers: stores the subscriptions of a service's handlers. Services have no database, so they start this."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from bellwire.contract import (
        REGISTER_HANDLERS,
        HandlerRegistration,
        HandlerRegistrationResult,
        register_handlers,
    )
    from workflows.policies import LOOKUP_OPTIONS


@workflow.defn(name=REGISTER_HANDLERS)
class RegisterHandlers:
    @workflow.run
    async def run(self, registration: HandlerRegistration) -> HandlerRegistrationResult:
        return await workflow.execute_local_activity(register_handlers, registration, **LOOKUP_OPTIONS)
