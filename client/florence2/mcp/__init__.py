"""An MCP server: tools for language models that look at images (extra `[mcp]`).

`florence2 mcp` runs it. It is made with the official SDK, in its low-level form, whose tools return exactly what is
written here: schemas, structured results and error messages.
"""
