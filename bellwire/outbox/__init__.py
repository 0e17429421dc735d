"""The outbox: publish an event in the transaction that makes it true.

A service inserts the event into a table of its own database, in the transaction that changes its own data. `python -m starter
relay` publishes what is in the table. If the transaction is rolled back, nothing is published; once it is committed, the event is
published, although the service, Temporal or the network fail meanwhile.

```python
with session.begin():
    session.add(order)
    outbox.insert(session, Event(source="/shop", type="order.paid", subject=order.id))
```
"""

from bellwire.outbox.inserting import insert, insert_async
from bellwire.outbox.schema import SCHEMA, create_table, create_table_async

__all__ = ["SCHEMA", "create_table", "create_table_async", "insert", "insert_async"]
