"""`florence2 web`: HTTP in front of Triton servers, or of an engine in this process.

`app.make_app` combines the routes of `rest`, `openai`, `page` and `health`. What these packages share is here: limits,
API keys, headers and errors. The model's rules are those of `florence2.AsyncClient`.

Needs the extra `[web]`: `pip install "florence2-triton[web]"`.
"""
