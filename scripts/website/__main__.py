"""Build the site: python -m website [--out FOLDER] [--lecture FOLDER | --without-lecture] [--page FOLDER]."""

import argparse
import sys
import time
from pathlib import Path

from website.build import Options, build, execute_lecture
from website.files import SiteError

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Build the site, and say where it is or what is wrong with it."""
    parser = argparse.ArgumentParser(prog="scripts/site.sh", description="Build the site, and check its links.")
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="folder of the site (default: site)")
    lecture = parser.add_mutually_exclusive_group()
    lecture.add_argument("--lecture", type=Path, metavar="DIR", help="take the lecture as it was executed into DIR")
    lecture.add_argument("--without-lecture", action="store_true", help="show chapters as programs, without executing")
    parser.add_argument("--page", type=Path, metavar="DIR", help="take the drawing page from DIR, as draw/")
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    began = time.perf_counter()
    work = ROOT / "build" / "site"
    try:
        executed = given.lecture
        if executed is None and not given.without_lecture:
            executed = execute_lecture(ROOT, work / "lecture")
        faults = build(Options(ROOT, given.out, work, executed, given.page))
    except SiteError as error:
        print(f"site: {error}", file=sys.stderr)
        return 1
    if faults:
        print("\n".join(faults), f"site: {len(faults)} faults", sep="\n", file=sys.stderr)
        return 1
    pages = len(list(given.out.rglob("*.html")))
    print(f"site: {pages} pages in {given.out}, made in {time.perf_counter() - began:.0f} s; no fault found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
