"""ChargingCodeGenerator: compiles templates to Python code that charges the environment's budget as it runs."""

from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import nodes as tree
from jinja2.compiler import CodeGenerator, Frame

_OPERATORS = {"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<=", "in": "in", "notin": "not in"}


class ChargingCodeGenerator(CodeGenerator):
    """Each block costs a step and its fixed text. Literals, operands and sliced values are charged by their size."""

    def blockvisit(self, nodes: Iterable[tree.Node], frame: Frame) -> None:
        nodes = list(nodes)
        fixed = sum(len(data.data) for node in nodes for data in _fixed_text(node))
        self.writeline(f"environment.budget.spend({1 + (fixed >> 6) + (sum(map(_weight, nodes)) >> 4)})")
        super().blockvisit(nodes, frame)

    def visit_For(self, node: tree.For, frame: Frame) -> None:  # noqa: N802
        if node.test is not None:  # items that the condition excludes are charged as well
            step = tree.Call(tree.EnvironmentAttribute("step"), [], [], None, None, lineno=node.lineno)
            node.test = tree.And(step, node.test, lineno=node.lineno)
        super().visit_For(node, frame)

    def visit_AssignBlock(self, node: tree.AssignBlock, frame: Frame) -> None:  # noqa: N802
        self.push_assign_tracking()
        inner = frame.inner()
        inner.require_output_check = False  # the text is kept and not written
        inner.symbols.analyze_node(node)
        self.enter_frame(inner)
        self.buffer(inner)
        self.blockvisit(node.body, inner)
        self.newline(node)
        self.visit(node.target, frame)
        self.write(" = environment.captured(context, ")
        if node.filter is None:
            self.write(f"concat({inner.buffer}), True")
        else:
            self.visit_Filter(node.filter, inner)
            self.write(", False")
        self.write(")")
        self.pop_assign_tracking(frame)
        self.leave_frame(inner)

    def visit_CallBlock(self, node: tree.CallBlock, frame: Frame) -> None:  # noqa: N802
        call_frame, macro = self.macro_body(node, frame)
        self.writeline("caller = ")
        self.macro_def(macro, call_frame)
        self.start_write(frame, node)
        self.write("environment.written(context, ")
        self.visit_Call(node.call, frame, forward_caller=True)
        self.write(")")
        self.end_write(frame)

    def visit_FilterBlock(self, node: tree.FilterBlock, frame: Frame) -> None:  # noqa: N802
        self.writeline("environment.refuse_filter_block()", node)
        super().visit_FilterBlock(node, frame)

    def visit_Getattr(self, node: tree.Getattr, frame: Frame) -> None:  # noqa: N802
        self.write("environment.field(")
        self.visit(node.node, frame)
        self.write(f", {node.attr!r})")

    def visit_Concat(self, node: tree.Concat, frame: Frame) -> None:  # noqa: N802
        escape = "context.eval_ctx.autoescape" if frame.eval_ctx.volatile else repr(bool(frame.eval_ctx.autoescape))
        self.write(f"environment.concatenate({escape}, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: tree.List, frame: Frame) -> None:  # noqa: N802
        self._charge(super().visit_List, node, frame)

    def visit_Dict(self, node: tree.Dict, frame: Frame) -> None:  # noqa: N802
        self._charge(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: tree.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._charge(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Compare(self, node: tree.Compare, frame: Frame) -> None:  # noqa: N802
        self.write("(")
        self._charge(self.visit, node.expr, frame)
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: tree.Operand, frame: Frame) -> None:  # noqa: N802
        self.write(f" {_OPERATORS[node.op]} ")
        self._charge(self.visit, node.expr, frame)

    def visit_Getitem(self, node: tree.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, tree.Slice):
            self._charge(self.visit, node.node, frame)
            self.write("[")
            self.visit(node.arg, frame)
            self.write("]")
        else:
            super().visit_Getitem(node, frame)

    def _charge(self, visit: Callable[[Any, Frame], None], node: tree.Node, frame: Frame) -> None:
        self.write("environment.budget.charge(")
        visit(node, frame)
        self.write(")")


def _weight(node: tree.Node) -> int:
    """The number of nodes of a statement, without the blocks in it."""
    count, pending = 0, [node]
    while pending:
        count += 1
        pending.extend(pending.pop().iter_child_nodes(exclude=("body", "else_")))
    return count


def _fixed_text(node: tree.Node) -> list[tree.TemplateData]:
    """The fixed text that a statement writes itself. Statements inside it are blocks of their own."""
    return [part for part in node.nodes if isinstance(part, tree.TemplateData)] if isinstance(node, tree.Output) else []
