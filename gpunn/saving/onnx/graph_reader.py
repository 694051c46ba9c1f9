"""Turn the nodes of a graph into layers: chains, branches that meet again, and equations of activations."""

from collections import defaultdict

from gpunn.nn.layers import Chain, Concatenate, Layer, Residual
from gpunn.saving.onnx import window_readers  # noqa: F401  # registers its readers
from gpunn.saving.onnx.elementwise import ELEMENTWISE, add_equation, check_inputs, read_with_constant
from gpunn.saving.onnx.folding import fold_shape
from gpunn.saving.onnx.operator_readers import READERS, read_embedding
from gpunn.saving.onnx.parsing import OnnxFile, Operator, RefusedError
from gpunn.saving.onnx.reader_state import ReaderState, known_inputs, make_layer

_JOINS = {"Add", "Sum", "Concat"}


class GraphReader:
    """Read the nodes of a graph, from its input to its output."""

    def __init__(self, file: OnnxFile, nodes: list[Operator]) -> None:
        self._constants = file.constants
        self._makes: dict[str, Operator] = {}
        self._place: dict[int, int] = {id(node): place for place, node in enumerate(nodes)}
        self._users: dict[str, list[Operator]] = defaultdict(list)
        for node in nodes:
            for name in dict.fromkeys(node.inputs):
                if name and name not in self._constants:
                    self._users[name].append(node)
            for name in filter(None, node.outputs):
                if name in self._makes or name in self._constants:
                    raise RefusedError(f"two nodes make {name!r:.60}")
                self._makes[name] = node

    def needed(self, end: str) -> list[Operator]:
        """Return the nodes that an output depends on, in graph order."""
        found: dict[int, Operator] = {}
        open_ = [end]
        while open_:
            node = self._makes.get(open_.pop())
            if node is not None and id(node) not in found:
                found[id(node)] = node
                open_ += [name for name in node.inputs if name and name not in self._constants]
        return sorted(found.values(), key=lambda node: self._place[id(node)])

    def layers(self, state: ReaderState, begin: str, end: str) -> None:
        """Append the layers between the arrays `begin` and `end` to a state."""
        nodes = self.needed(end)
        own = {id(node) for node in nodes}
        x = begin
        while x != end:
            users = [node for node in self._users[x] if id(node) in own]
            if shapes := [node for node in users if node.kind == "Shape"]:
                for node in shapes:
                    fold_shape(node, state.axes, self._constants, self._users)
                    node.finish()
                nodes = [node for node in nodes if node.outputs[0] not in self._constants]
                own = {id(node) for node in nodes}
                users = [node for node in users if id(node) in own]
            if not users:
                raise RefusedError(f"the output {end!r:.60} is not made of the input {begin!r:.60} alone")
            node = users[0]
            if len(users) == 1 and sum(name == x for name in node.inputs) == 1 and self._is_single(node):
                self._read(state, node, x)
                x = node.outputs[0]
                continue
            at = self._place[id(node)]
            x = self._branches(state, x, [other for other in nodes if self._place[id(other)] >= at])

    def _is_single(self, node: Operator) -> bool:
        return sum(name not in self._constants for name in node.inputs if name) == 1

    def _read(self, state: ReaderState, node: Operator, x: str) -> None:
        """Read a node with one input that is not a constant."""
        if any(node.outputs[1:]) and node.kind not in READERS:
            raise node.refusal("its second output", "gpunn's layers have one")
        if node.kind == "Gather" and node.inputs[1:] == (x,):
            read_embedding(state, node, self._constants[node.inputs[0]])
        elif node.kind in READERS:
            READERS[node.kind](state, node, known_inputs(node, self._constants, x))
        elif node.kind in ELEMENTWISE:
            check_inputs(node)
            read_with_constant(state, node, x, self._constants)
        else:
            mend = ": export it without, the losses of gpunn take its input" if node.kind == "LogSoftmax" else ""
            raise node.refusal("it", f"gpunn has no layer for this operator{mend}")
        node.finish()

    def _branches(self, state: ReaderState, x: str, nodes: list[Operator]) -> str:
        """Read the branches that begin at x and the node where they all meet; return its output."""
        inside: dict[int, Operator] = {}
        for node in nodes:
            given = [name for name in node.inputs if name and name not in self._constants]
            known = [name == x or (name in self._makes and id(self._makes[name]) in inside) for name in given]
            if not all(known):
                continue  # depends on another branch
            if len(given) > 1 and self._between(x, node) == inside.keys() and self._is_closed(x, inside, node, nodes):
                return self._meet(state, x, node, list(inside.values()))
            inside[id(node)] = node
        first = next(node for node in nodes if x in node.inputs)
        raise first.refusal("its place", "branches must begin with one input and meet in one sum, or side by side")

    def _between(self, x: str, node: Operator) -> set[int]:
        """Return the nodes between x and a node."""
        found: set[int] = set()
        open_ = [name for name in node.inputs if name != x]
        while open_:
            made_by = self._makes.get(open_.pop())
            if made_by is not None and id(made_by) not in found:
                found.add(id(made_by))
                open_ += [name for name in made_by.inputs if name and name != x and name not in self._constants]
        return found

    def _is_closed(self, x: str, inside: dict[int, Operator], node: Operator, nodes: list[Operator]) -> bool:
        """Return whether x and the outputs inside are used only there and by the node."""
        own, considered = {*inside, id(node)}, {id(other) for other in nodes}
        made = [x, *(name for other in inside.values() for name in other.outputs if name)]
        return all(id(user) in own for name in made for user in self._users[name] if id(user) in considered)

    def _meet(self, state: ReaderState, x: str, node: Operator, inside: list[Operator]) -> str:
        """Read the node where branches meet, with the nodes inside: as an equation, a Residual or a Concatenate."""
        ends = [name for name in node.inputs if name not in self._constants]
        paths = [self._branch(x, end) for end in ends]
        if all(other.kind in ELEMENTWISE for other in (*inside, node)) and not (node.kind == "Add" and x in ends):
            add_equation(state, [*inside, node], x, self._constants)
        elif node.kind in _JOINS and sum(map(len, paths)) == len(set().union(*paths)) and len(ends) == len(node.inputs):
            self._join(state, x, node, ends)
        else:
            raise node.refusal(f"inputs {', '.join(ends):.80}", "gpunn has no layer where such branches meet")
        for other in (*inside, node):
            other.finish()
        return node.outputs[0]

    def _branch(self, x: str, end: str) -> set[int]:
        """Return the nodes of a branch, from x to its end."""
        if end == x:
            return set()
        return {id(self._makes[end])} | self._between(x, self._makes[end])

    def _join(self, state: ReaderState, x: str, node: Operator, ends: list[str]) -> None:
        """Read the branches of a sum or a concatenation."""
        branches, states = [], []
        for end in ends:
            branch = state.within()
            self.layers(branch, x, end)
            states.append(branch)
            branches.append(branch.layers)
        last = states[0]
        if any(each.order != last.order for each in states):
            raise node.refusal("its inputs", "expected axes of one order")
        if node.kind != "Concat":
            layer = _sum(node, branches)
        else:
            axis = node.take("axis", 1)
            rank = len(last.axes) + 1
            at = 1 if len(last.shape) == 1 or not last.channels_last else rank - 1
            if axis % rank != at or last.flat is not None:
                raise node.refusal(f"axis = {axis}", "expected that of features or channels")
            layer = make_layer(node, "its inputs", Concatenate, *branches)
        layer.name = layer.name_prefix
        state.channels_last, state.flat, state.is_row = last.order
        state.add(node, layer)


def _sum(node: Operator, branches: list[list[Layer]]) -> Layer:
    """Return a Residual; the longer branch becomes its layers, the other its projection."""
    if len(branches) != 2 or not any(branches):
        raise node.refusal(f"{len(branches)} inputs", "expected a sum of two branches")
    shortcut, layers = sorted(branches, key=len)
    if not shortcut:
        return make_layer(node, "its inputs", Residual, layers)
    return make_layer(node, "its inputs", Residual, layers, shortcut[0] if len(shortcut) == 1 else Chain(shortcut))
