"""Let tests import `website`, which lies in scripts/."""

import sys

from support.paths import ROOT

if str(ROOT / "scripts") not in sys.path:
    sys.path.append(str(ROOT / "scripts"))
