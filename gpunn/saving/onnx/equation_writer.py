"""Write the equation of an activation as ONNX nodes, one for each step of the program behind its kernels."""

from collections.abc import Mapping

from gpunn.saving.onnx.graph import Graph

_OPERATORS = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "negative": "Neg", "reciprocal": "Reciprocal",
    "sqrt": "Sqrt", "power": "Pow", "exp": "Exp", "log": "Log", "tanh": "Tanh", "sinh": "Sinh", "cosh": "Cosh",
    "sin": "Sin", "cos": "Cos", "tan": "Tan", "atan": "Atan", "Abs": "Abs", "sign": "Sign", "maximum": "Max",
    "minimum": "Min", "erf": "Erf", "where": "Where", ">": "Greater", ">=": "GreaterOrEqual", "<": "Less",
    "<=": "LessOrEqual", "==": "Equal",
}  # fmt: skip
_COMPARED = (">", ">=", "<", "<=", "==", "!=")
_FLOAT = 1  # TensorProto.FLOAT


def write_equation(graph: Graph, equation: str, z: str, parameters: Mapping[str, str]) -> str:
    """Write a = f(z, p), with the names of z and of each parameter; return the name of a."""
    from gpunn.nn.equations.code import activation_program

    program = activation_program(equation, list(parameters))
    values, choices = [z, *parameters.values()], set()

    def named(operand: int | float, operation: str = "") -> str:
        if isinstance(operand, float):
            return graph.number(operand)
        if operand in choices and operation != "where":  # a comparison used as a factor
            return graph.node("Cast", values[operand], to=_FLOAT)
        return values[operand]

    for operation, operands in program.steps:
        inputs = [named(operand, operation) for operand in operands]
        if operation in _COMPARED:
            choices.add(len(values))
        values.append(_step(graph, operation, inputs))
    (output,) = program.outputs
    made = named(output)
    # For a = z or a constant no node was written: the layer needs an output of its own.
    return graph.node("Identity", made) if made in (z, *parameters.values()) or isinstance(output, float) else made


def _step(graph: Graph, operation: str, x: list[str]) -> str:
    node, one = graph.node, graph.number(1.0)
    if operation == "square":
        return node("Mul", x[0], x[0])
    if operation == "!=":
        return node("Not", node("Equal", *x))
    if operation == "log1p":  # ONNX has none; near 0, log(u) x/(u − 1) with u = 1 + x is exact (D. Goldberg, 1991)
        u = node("Add", x[0], one)
        above = node("Sub", u, one)
        is_zero = node("Equal", above, graph.number(0.0))
        near = node("Div", node("Mul", node("Log", u), x[0]), node("Where", is_zero, one, above))
        is_near = node("Less", node("Abs", x[0]), graph.number(0.5))
        return node("Where", is_near, node("Where", is_zero, x[0], near), node("Log", u))
    if operation == "expm1":  # eˣ − 1 = 2 t/(1 − t) with t = tanh(x/2)
        t = node("Tanh", node("Mul", x[0], graph.number(0.5)))
        near = node("Div", node("Add", t, t), node("Sub", one, t))
        is_near = node("Less", node("Abs", x[0]), one)
        return node("Where", is_near, near, node("Sub", node("Exp", x[0]), one))
    return node(_OPERATORS[operation], *x)
