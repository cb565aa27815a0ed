"""The rules that pick the next client; one file each, `fcfs` is the template."""
