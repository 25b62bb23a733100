"""The documentation site: Markdown pages, read by Sphinx through MyST. `make docs` builds it.

The source folder is the repository, not this folder, so that the links between pages here and pages beside the code
(`docker/README.md`, `benchmarks/README.md`) are the same on the site and in the repository.
"""

project = "florence2-triton"
author = "the florence2-triton contributors"

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "benchmarks/**.md",
    "docker/**.md",
    "examples/*/README.md",
    "training/demo/README.md",
    "training/finetune/README.md",
]
# Not even searched.
exclude_patterns = [".*", "build", "client", "examples/typescript/node_modules", "out", "protos", "server", "tests"]
myst_heading_anchors = 4  # the anchors that GitHub gives headings
nitpicky = True

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["width.css"]
html_extra_path = ["_root"]  # index.html, which leads from the site's root to root_doc
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
