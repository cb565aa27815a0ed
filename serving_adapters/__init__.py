"""Serving engines, one thin file each.

Start reading at `base` (what an engine says and asks), then the file of your engine. No module here imports its
engine before it is used; `registry` lists them with the versions they were tested with.
"""
