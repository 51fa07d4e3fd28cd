"""How Sphinx builds the site; `make docs` runs it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tools"))

project = "Snowmelt"
author = "The Snowmelt authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "plain_docstrings"]
exclude_patterns = ["tools"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_title = "Snowmelt"
html_show_sourcelink = False
smartquotes = False  # two hyphens are a flag, not a dash
myst_heading_anchors = 3
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80
