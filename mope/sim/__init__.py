"""A made-up server and its measurement: what a policy does to clients before it is deployed.

The server steps as real engines do (`loops`), on the step times of a hardware profile (`costs`), and asks the same
`FairScheduler` as the adapters. Read `run.py` first, then `engine.py`, then one loop.
"""
