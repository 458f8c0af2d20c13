"""Sphinx builds the handbook: `make docs`, then open docs/_build/html/index.html."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent / "src")]

project = "idiolect"
author = "the idiolect contributors"
html_title = "idiolect"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "measurements",
    "pictures",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
# Another copy of MathJax, for reading without a network.
if "MATHJAX" in os.environ:
    mathjax_path = os.environ["MATHJAX"]

html_theme = "pydata_sphinx_theme"
html_theme_options = {"show_toc_level": 2, "show_nav_level": 1, "navbar_end": ["theme-switcher"]}
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures are long, and docstrings say what an argument is
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Docstrings name types in their short form, which no page can resolve.
nitpick_ignore_regex = [("py:exc", ".*Error"), ("py:class", ".*")]
# Docstrings name arguments and types of other libraries in plain code.
default_role = "code"
highlight_language = "python"
