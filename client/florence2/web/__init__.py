"""`florence2 web`: HTTP in front of Triton servers, or of an engine in this process.

`app.make_app` puts the faces together: `rest`, `openai`, `page` and `health` each export their routes. What is common
to them is here: limits, API keys, headers and errors. The model's rules are those of `florence2.AsyncClient`.

Needs the extra `[web]`: `pip install "florence2-triton[web]"`.
"""
