"""Break Equinox on purpose, one small change at a time, and see that the tests notice.

    python scripts/mutants.py [WORDS...]      only mutants whose line holds one of the words

Each mutant names the condition it breaks and the tests that have to catch it. They run on a copy; a mutant
that survives its own tests is an error. Prints a table in Markdown; exit status 1 where one survived.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIMIT_S = 240  # many times what the tests of a sound scheduler take
COPIED = ("mope", "tests/equinox", "tests/conftest.py", "pyproject.toml")


class Mutant(NamedTuple):
    """In `file` of mope/equinox, `old` becomes `new`; `tests` is a pytest expression of who must see it."""

    condition: str
    what: str
    file: str
    old: str
    new: str
    tests: str


LOST, FIFO, IDLE = "lost_doubled", "first_in_first_out", "never_idles"
SETTLED = "settled_counter or metered or leave_no_trace"
GAP, VTC_GAP = "gap_is_2u", "within_2u"
CREDIT, NAME, GROUP, FLOOD, LIE = "idle_credit", "becomes_active", "a_group_is", "flooding_does_not", "lying"
PASSED, LARGEST = "passed_within_its_bound", "largest_request"
REDUCED, PUBLISHED = "reduced", "published_algorithm_event or by_hand"
RESTORED, BAD = "stopped_and_restored", "bad_calls"

MUTANTS = [
    Mutant("1", "a new request goes in front", "queue.py",
           "if last.number < job.number:", "if last.number > job.number:", f"{LOST} or {FIFO}"),
    Mutant("1", "a cancelled request stays in the middle of its queue", "steps.py",
           "if job.before is not None or account.head is job:", "if account.head is job:", LOST),
    Mutant("1", "a removed request leaves a dangling link", "queue.py",
           "        before.after = after\n    if after", "        pass\n    if after", LOST),
    Mutant("1", "a preempted request goes to the end", "queue.py",
           "after.number < job.number", "after.number != job.number", FIFO),
    Mutant("1", "the growth of a preempted request is not taken back", "steps.py",
           "self.admission.growth -= job.reserve", "self.admission.growth -= job.served and job.reserve", LOST),
    Mutant("2", "a head that does not fit blocks the rest", "waiting.py",
           "head = self._pass(head, capacity, now)", "head = None", IDLE),
    Mutant("2", "the smallest need is one too large", "admission.py",
           "                return need\n", "                return need + 1\n", IDLE),
    Mutant("2", "new heads are not told to the needs", "waiting.py", "if self.needs.built:", "if False:", IDLE),
    Mutant("2", "a passed head falls out of the turns", "turns.py",
           "extend(reversed(taken))", "extend(reversed(taken[1:]))", IDLE),
    Mutant("2", "a reservation is never used up by going on", "admission.py",
           "return not head.stuck and", "return", "blocks_only_its_own"),
    Mutant("3", "nothing is refunded", "steps.py",
           "account.user += user - job.user", "account.user += max(user - job.user, 0)", SETTLED),
    Mutant("3", "a preempted request is charged twice", "steps.py",
           "        job.user, job.resource = user, resource\n",
           "        job.user, job.resource = user * (job.admissions < 2), resource\n", SETTLED),
    Mutant("3", "a late settlement ignores the lift", "steps.py",
           "        if account.lifts:\n            lifts.apply", "        if False:\n            lifts.apply",
           SETTLED),
    Mutant("3", "two lifts in a row are joined wrongly", "lifts.py",
           "return min(earlier, later) if", "return max(earlier, later) if", f"{SETTLED} or two_rooms"),
    Mutant("3", "rooms are forgotten too early", "lifts.py",
           "while lifts and account.running ==", "while lifts and account.running >=", SETTLED),
    Mutant("3", "only the user counter is lifted", "lifts.py",
           "    if account.resource < resource:\n", "    if False:\n", SETTLED),
    Mutant("3", "waiting as the head is lost when displaced", "waiting.py",
           "head.waited_s += now - head.head_s", "pass", SETTLED),
    Mutant("3", "service before a preemption is forgotten", "steps.py",
           "job.ran_s += now - job.admitted_s", "job.ran_s = now - job.admitted_s", SETTLED),
    Mutant("3", "counters of 20 bits", "counters.py", "GRAIN = 2.0**64", "GRAIN = 2.0**20", SETTLED),
    Mutant("3", "tokens served before are forgotten in a plain VTC", "lifts.py",
           "if more_user < 0 or not metered:", "if True:", SETTLED),
    Mutant("4", "weights are ignored", "policies/vtc.py", "cost / weight * GRAIN", "cost * GRAIN", VTC_GAP),
    Mutant("4", "the largest counter is next", "policies/vtc.py", "return user\n", "return -user\n", VTC_GAP),
    Mutant("4", "tokens are charged at the end only", "scheduler.py",
           "if output_tokens > job.counted:", "if False:", "as_they_come or computed_by_hand"),
    Mutant("4", "output is free", "counters.py",
           "return k_in * n_in + k_out * n_out", "return k_in * n_in", f"{VTC_GAP} or {GAP}"),
    Mutant("4", "an account has caught up at once", "admission.py",
           "if account.bypassed and account.score >= account.bypass_level:", "if True:", "add_up"),
    Mutant("5", "nobody is lifted", "accounts.py",
           "if self._policy.lifts and", "if False and", f"{CREDIT} or {NAME}"),
    Mutant("5", "lifted to the last that left, whoever is active", "accounts.py",
           "level = first or self.last_left", "level = self.last_left", f"{CREDIT} or {NAME}"),
    Mutant("5", "groups are not looked at", "accounts.py",
           "self.groups.get(client, client) if self.groups else client", "client", GROUP),
    Mutant("5", "the lift halves", "lifts.py", "account.user = user\n", "account.user = user // 2\n",
           f"{CREDIT} or {NAME}"),
    Mutant("6", "all waiting takes off the charge", "counters.py",
           "return head_s + service_s", "return queued_s + service_s", FLOOD),
    Mutant("6", "waiting as the head counts from submission", "waiting.py",
           "        job.head_s = now\n        if not job.reserve", "        if not job.reserve", FLOOD),
    Mutant("7", "what was not foreseen is not charged", "steps.py",
           "account.user += user - job.user", "account.user += min(user - job.user, 0) if job.user else user", LIE),
    Mutant("7", "a settled request costs what was foreseen", "steps.py",
           "        job.counted = job.served\n        if usage is None",
           "        if usage is None", LIE),
    Mutant("8", "bypasses are not counted", "admission.py", "account.bypassed += 1", "account.bypassed += 0",
           f"{PASSED} or {LARGEST}"),
    Mutant("8", "one bypass too many", "admission.py",
           "count >= config.bypass_limit", "count > config.bypass_limit", PASSED),
    Mutant("8", "time passes without a reservation", "admission.py",
           "(count > 0 and now - since_s >= config.bypass_s)", "False", PASSED),
    Mutant("8", "no reservation is kept", "admission.py", "return not head.stuck and", "return False and",
           f"{PASSED} or {LARGEST}"),
    Mutant("8", "a new request wipes out the bypasses of its client", "scheduler.py",
           "            queue.insert(account, job)\n",
           "            queue.insert(account, job)\n            account.bypassed = 0\n",
           "goes_on_sending"),
    Mutant("9", "a thousandth of the latency is left", "counters.py",
           "(1 + delta * felt_s)", "(1 + (delta + 1e-3) * felt_s)", REDUCED),
    Mutant("9", "a little of the resource counter is left", "counters.py",
           "resource * b", "resource * (b + 2**48)", REDUCED),
    Mutant("9", "one token more is foreseen", "policies/equinox.py", "        return tokens\n",
           "        return tokens + 1\n", REDUCED),
    Mutant("9", "scores are rounded", "policies/equinox.py",
           "return holistic_score(user, resource, self._a, self._b)",
           "return holistic_score(user, resource, self._a, self._b) >> 130", REDUCED),
    Mutant("10", "bypasses are not in the snapshot", "snapshot.py",
           '{"entry", "head",', '{"bypassed", "entry", "head",', RESTORED),
    Mutant("10", "rooms are not in the snapshot", "snapshot.py",
           "account.lifts = lifts or None", "account.lifts = None", RESTORED),
    Mutant("10", "the last that left is not in the snapshot", "snapshot.py",
           'accounts.last_left = accounts.by_name', 'accounts.last_left = None and accounts.by_name', RESTORED),
    Mutant("10", "the pin is not in the snapshot", "snapshot.py",
           'scheduler.pin = None if', 'scheduler.pin = None if True or', RESTORED),
    Mutant("10", "time may go backwards", "checks.py", "return max(now, past)", "return now", "backwards"),
    Mutant("10", "NaN is a time", "checks.py", "if not isfinite(now):", "if False:", BAD),
    Mutant("10", "infinite forecasts are believed", "advice.py",
           "job.foreseen = forecast is not None and 0 <= tokens < INFINITE",
           "job.foreseen = forecast is not None and 0 <= tokens", "ruin_a_counter"),
    Mutant("10", "an id may be used twice", "scheduler.py", "if request.id in self.jobs:", "if False:", BAD),
    Mutant("10", "output beyond max_tokens is charged", "steps.py",
           "if job.request.max_tokens is not None or served > longest:", "if False:", "beyond_max_tokens or longest"),
    Mutant("10", "weights of any size", "accounts.py",
           "if not (isfinite(weight) and least <= weight <= most):", "if False:", "weights_are_numbers"),
    Mutant("11", "nobody is the last that left", "waiting.py",
           "            self.accounts.last_left = account\n", "            pass\n", PUBLISHED),
    Mutant("11", "an output token costs 1", "policies/vtc.py", "k_out: float = field(default=2.0",
           "k_out: float = field(default=1.0", PUBLISHED),
    Mutant("11", "a tie goes to the newer head", "policies/vtc.py",
           "return user\n", "return (user << 30) - head.number\n", PUBLISHED),
    Mutant("turns", "a key that falls gets no entry", "waiting.py",
           "if entry is None or score < entry[0] or (", "if entry is None or (",
           f"{IDLE} or order_is_what_next or {SETTLED}"),
    Mutant("turns", "the bound of a bucket is its beginning", "turns.py",
           "(index + 1) << self._shift", "index << self._shift", "sorted_list"),
    Mutant("turns", "a bucket is not sorted", "turns.py", "self._run.sort(reverse=True)", "pass", "sorted_list"),
    Mutant("turns", "what is not live is not dropped", "turns.py",
           "if entry[2].head is None:\n                entry[2].entry = None", "if False:\n                pass",
           "sorted_list"),
    Mutant("drop", "what may be refunded is not looked at", "accounts.py",
           "refunds[job.account] = (user + job.user, resource + job.resource)", "pass",
           "dropping_changes or owes_is_kept"),
    Mutant("drop", "whoever is idle is dropped", "accounts.py",
           "if small and self._policy", "if self._policy", "dropping_changes or owes_is_kept"),
    Mutant("order", "an order charges nothing even while it is tried", "order.py",
           "trial.user += user - job.user", "pass", "order_is_what_next"),
    Mutant("order", "an order does not count bypasses", "order.py",
           "trial.bypassed += 1", "trial.bypassed += 0", "order_is_what_next"),
]  # fmt: skip


def main(words: list[str]) -> int:
    """Run the mutants and print the table."""
    chosen = [m for m in MUTANTS if not words or any(word in " ".join(m) for word in words)]
    survived = 0
    print("| breaks | mutant | caught by |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name in COPIED:
            source, target = ROOT / name, home / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(
                    source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "assets")
                )
            else:
                shutil.copy(source, target)
        for mutant in chosen:
            caught = run(mutant, home)
            survived += not caught
            print(f"| {mutant.condition} | {mutant.what} | {caught or '**survived**'} |", flush=True)
    print(f"\n{len(chosen)} mutants, {survived} survived")
    return 1 if survived else 0


def run(mutant: Mutant, home: Path) -> str:
    """The first test that fails; empty where none does."""
    path = home / "mope/equinox" / mutant.file
    sound = path.read_text()
    assert sound.count(mutant.old) == 1, f"{mutant.what}: {sound.count(mutant.old)} places in {mutant.file}"
    path.write_text(sound.replace(mutant.old, mutant.new))
    try:
        command = [
            sys.executable,
            "-B",
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/equinox",
        ]
        command += ["--ignore=tests/equinox/test_equinox_mutants.py", "-k", mutant.tests]
        environment = {**os.environ, "PYTHONPATH": str(home), "MOPE_SHRINK": "0"}
        done = subprocess.run(
            command,
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return "a test that hangs"
    finally:
        path.write_text(sound)
    failed = re.findall(r"^(?:FAILED|ERROR) \S+?::(\w+)", done.stdout, re.MULTILINE)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return failed[0] if failed else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
