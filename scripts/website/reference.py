"""Write the reference from docstrings: a page a topic, an entry a public name, by Griffe, which imports nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from website.files import Repository, SiteError
from website.pages import NUMBER


@dataclass
class Topic:
    """A page of the reference: the public names that are defined in some modules."""

    file: str
    title: str
    about: str
    modules: tuple[str, ...]
    names: list[str] = field(default_factory=list)


TOPICS = (
    Topic("networks", "Networks", "Build a network, train it, ask it, save and load it.",
          ("gpunn.sequential", "gpunn.saving.state_dict")),
    Topic("layers", "Layers", "Parts of a network that have weights or change shapes.", ("gpunn.nn.layers",)),
    Topic("activations", "Activations", "Functions of each element, and softmax.", ("gpunn.nn.layers.activation",)),
    Topic("losses", "Losses", "Costs C that a training makes small.", ("gpunn.nn.losses",)),
    Topic("initializers", "Initial weights", "Distributions that weights begin with.", ("gpunn.nn.initializers",)),
    Topic("optimizers", "Optimizers and schedules", "Gradient descent, regularization, and learning rates over time.",
          ("gpunn.train.optimizers", "gpunn.train.schedules")),
    Topic("data", "Data", "Load data sets, hold samples, change training images.", ("gpunn.data",)),
    Topic("training", "Callbacks", "Watch a training, stop it, keep it.",
          ("gpunn.train.callbacks", "gpunn.train.stopping", "gpunn.train.progress", "gpunn.train.custom_metrics",
           "gpunn.saving.checkpointer", "gpunn.reports.tensorboard")),
    Topic("results", "Results", "Records of a training, and measures of a network.",
          ("gpunn.train.evaluator", "gpunn.train.history", "gpunn.train.record", "gpunn.train.report",
           "gpunn.train.outputs_report")),
    Topic("pictures", "Pictures", "Figures of trainings and networks, by Matplotlib.", ("gpunn.reports.plots",)),
    Topic("own-parts", "Parts of your own, and errors", "Register and check parts, bound memory, catch errors.",
          ("gpunn.config", "gpunn.nn.gradients", "gpunn.errors", "gpunn.backend.limits")),
)  # fmt: skip
SKLEARN = Topic("scikit-learn", "scikit-learn", "Networks as estimators, in `gpunn.sklearn`.", ("gpunn.sklearn",))
FOLDER = "reference"
HIDDEN = {"gpunn.config"}  # what every part has for files
WIDE = 88  # characters of a signature that stays on one line
TITLES = {"parameters": "Arguments", "other parameters": "Arguments", "attributes": "Attributes", "returns": "Returns",
          "raises": "Raises", "yields": "Yields"}  # fmt: skip


def topic_of(module: str, topics: tuple[Topic, ...] = TOPICS) -> Topic:
    """Return the topic of what a module defines: the one with the longest matching prefix."""
    found = [
        (len(prefix), topic) for topic in topics for prefix in topic.modules if f"{module}.".startswith(f"{prefix}.")
    ]
    if not found:
        raise SiteError(f"{module} has a public name and no page: give it a topic in scripts/website/reference.py")
    return max(found, key=lambda pair: pair[0])[1]


def anchors(names: dict[str, str]) -> dict[str, str]:
    """Return the page and anchor of each public name, from the modules that define them."""
    return {name: f"{FOLDER}/{topic_of(module).file}.md#{name}" for name, module in names.items()}


def codes(names: str) -> str:
    """Return names that commas divide, each as code."""
    return ", ".join(f"`{name.strip()}`" for name in names.split(",") if name.strip())


class Reference:
    """The public names of gpunn as Griffe reads them."""

    def __init__(
        self, repository: Repository, names: list[str], shown: dict[str, set[str]], equations: dict[str, str]
    ) -> None:
        import griffe

        self.repository = repository
        self.shown = shown  # class -> names that its objects list, where they list some alone
        self.equations = equations
        options = {"warn_unknown_params": False, "warn_missing_types": False, "returns_named_value": False}
        loaded = griffe.load("gpunn", search_paths=[str(repository.root)], docstring_parser="google",
                             docstring_options=options, allow_inspection=False)  # fmt: skip
        self.package: Any = loaded
        self.objects = {name: self._final(loaded[name]) for name in names}
        self.modules = {name: thing.path.rpartition(".")[0] for name, thing in self.objects.items()}
        self.anchors = anchors(self.modules)
        self.estimators = {name: self._final(loaded["sklearn"][name]) for name in ("Classifier", "Regressor")}

    @staticmethod
    def _final(thing: Any) -> Any:
        return thing.final_target if thing.is_alias else thing

    def pages(self) -> Iterator[tuple[str, str]]:
        """Give the name and the Markdown of each page."""
        for topic in TOPICS:
            names = [name for name, module in self.modules.items() if topic_of(module) is topic]
            names.sort(key=lambda name: (self._rank(name, topic), self.objects[name].lineno))
            yield topic.file, self._page(topic, {name: self.objects[name] for name in names}, "gn.")
        yield SKLEARN.file, self._page(SKLEARN, self.estimators, "")

    def _rank(self, name: str, topic: Topic) -> tuple[int, str]:
        """Return the place of a name's module among those of its topic."""
        module = self.modules[name]
        rank = max(range(len(topic.modules)), key=lambda number: (module.startswith(topic.modules[number]), -number))
        return rank, module

    def _page(self, topic: Topic, things: dict[str, Any], prefix: str) -> str:
        listed = [
            f"| [`{prefix}{name}`](#{name}) | {self._prose(self._summary(thing))} |" for name, thing in things.items()
        ]
        table = ["| name | in short |", "|---|---|", *listed] if len(listed) > 1 else []
        entries = [self._entry(name, thing, prefix) for name, thing in things.items()]
        return "\n\n".join([f"# {topic.title}", topic.about, "\n".join(table), *entries]) + "\n"

    def _summary(self, thing: Any) -> str:
        text = thing.docstring.value if thing.docstring else ""
        first = " ".join(text.split("\n\n")[0].split())
        return re.split(r"(?<!\b[A-Z])\.(?:\s|$)", first)[0]  # not at an initial

    # --- One name

    def _entry(self, name: str, thing: Any, prefix: str) -> str:
        parts = [
            f"## {name} {{: #{name} }}",
            self._code(prefix + name, thing),
            self._meta(thing),
            *self._documented(thing),
        ]
        if thing.is_class:
            for member_name, member in self._members(name, thing).items():
                parts += [
                    f"### {name}.{member_name} {{: #{name}.{member_name} data-toc-label='{member_name}' }}",
                    self._code(f"{name}.{member_name}", member),
                    self._meta(member),
                    *self._documented(member),
                ]
        return "\n\n".join(filter(None, parts))

    def _members(self, name: str, thing: Any) -> dict[str, Any]:
        """Return what a class documents itself, and what bases do that are not public themselves."""
        members: dict[str, Any] = {}
        for owner in (thing, *thing.mro()):
            if owner is not thing and owner.name in self.objects and owner.path == self.objects[owner.name].path:
                break
            if owner.module.path in HIDDEN:
                continue
            for member_name, member in owner.members.items():
                if member_name.startswith("_") or member.is_alias or not member.docstring:
                    continue
                if name in self.shown and member_name not in self.shown[name]:
                    continue
                members.setdefault(member_name, member)
        return members

    def _meta(self, thing: Any) -> str:
        path = thing.relative_filepath.as_posix()
        source = f"[Source](../{path}#L-{thing.lineno})"
        if not thing.is_class:
            return f'<span class="meta">{source}</span>'
        bases = [self._public_base(str(base).rpartition(".")[2]) for base in thing.bases]
        kinds = ", ".join(filter(None, bases))
        return f'<span class="meta">{f"{kinds} · " if kinds else ""}{source}</span>'

    def _public_base(self, name: str) -> str:
        return f"A kind of [`{name}`]({self._to(name)})" if name in self.objects else ""

    def _to(self, name: str) -> str:
        return self.anchors[name].removeprefix(f"{FOLDER}/")

    def _code(self, shown: str, thing: Any) -> str:
        if thing.is_attribute:
            annotation = f": {thing.annotation}" if thing.annotation is not None else ""
            return f"```python\n{shown}{annotation}\n```"
        given = [parameter for parameter in thing.parameters if parameter.name not in ("self", "cls")]
        returns = "" if thing.is_class or thing.returns is None else f" -> {thing.returns}"
        parts, keyword = [], False
        for parameter in given:
            kind = parameter.kind.value
            if kind == "keyword-only" and not keyword:
                parts.append("*")
            keyword = keyword or kind in ("keyword-only", "variadic positional")
            stars = {"variadic positional": "*", "variadic keyword": "**"}.get(kind, "")
            text = stars + parameter.name
            if parameter.annotation is not None:
                text += f": {parameter.annotation}"
            if parameter.default is not None and not stars:
                text += f" = {parameter.default}" if parameter.annotation is not None else f"={parameter.default}"
            parts.append(text)
            if kind == "positional-only":
                following = given[given.index(parameter) + 1 :]
                if not following or following[0].kind.value != "positional-only":
                    parts.append("/")
        line = f"{shown}({', '.join(parts)}){returns}"
        if len(line) > WIDE:
            line = f"{shown}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"
        return f"```python\n{line}\n```"

    # --- Docstrings

    def _documented(self, thing: Any) -> Iterator[str]:
        for section in thing.docstring.parsed if thing.docstring else ():
            kind = section.kind.value
            if kind == "text":
                yield self._text(section.value)
            elif kind in TITLES:
                yield f"**{TITLES[kind]}**"
                yield "\n".join(self._item(item, kind) for item in section.value)
            elif kind == "examples":
                yield "**Example**"
                for inner, text in section.value:
                    yield f"```pycon\n{text}\n```" if inner.value == "examples" else self._text(text)
            else:  # a note
                yield f"**{section.title or kind.title()}**"
                yield self._text(getattr(section.value, "contents", str(section.value)))

    def _item(self, item: Any, kind: str) -> str:
        text = self._prose(" ".join(item.description.split()))
        if kind == "raises":
            return f"- {codes(str(item.annotation).strip('()'))}: {text}"
        if kind in ("returns", "yields"):
            return f"- {text}"
        name = str(item.name)
        if name.endswith(","):  # several attributes on a line, of which Griffe takes the second to be a type
            name += str(item.annotation)
        return f"- {codes(name)}: {text}"

    def _text(self, text: str) -> str:
        """Return paragraphs; indented ones stay as they are."""
        blocks = []
        for block in text.split("\n\n"):
            indented = block.startswith("    ")
            blocks.append(f"```text\n{block}\n```" if indented else self._prose(block))
        return "\n\n".join(blocks)

    def _prose(self, text: str) -> str:
        """Return a text with its code spans, its equation numbers as links, and no other meaning of a sign."""
        parts = re.split(r"(`+[^`]+`+)", text)
        return "".join(part if part.startswith("`") else self._plain(part) for part in parts)

    def _plain(self, text: str) -> str:
        text = re.sub(r"([\\*_\[\]<>{}|#$~])", lambda found: f"&#{ord(found[1])};", text)

        def number(found: re.Match[str]) -> str:
            place = self.equations.get(found[1])
            return f"[({found[1]})](../{place})" if place else found[0]

        return NUMBER.sub(number, text)
