"""OpenAI's form of requests and answers, with one field more, `soup`: shared by the server and by batches.

Knows no HTTP framework, no database, and no model.
"""
