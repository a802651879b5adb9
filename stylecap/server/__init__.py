"""What the web page needs and computes: jobs, pictures kept, limits, guarding, the FastAPI app.

The widgets are in ``ui/``; nothing here knows gradio.
"""
