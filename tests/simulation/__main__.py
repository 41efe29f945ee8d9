"""Run seeds from the command line; a seed that fails prints the line that runs it again."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time

from tests.simulation.world import STEPS_DEFAULT, Result, run


def _run(job: tuple[int, int]) -> Result:
    return run(job[0], steps=job[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--seeds", type=int, default=200, help="run this many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="beginning with this one")
    parser.add_argument("--steps", type=int, default=STEPS_DEFAULT, help="how much people do in one run")
    parser.add_argument("--jobs", type=int, default=1, help="processes to use")
    parser.add_argument("--trace", action="store_true", help="print what happens (with --seed)")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return report(run(arguments.seed, steps=arguments.steps, show=arguments.trace), arguments.steps, always=True)
    return run_many(arguments)


def run_many(arguments: argparse.Namespace) -> int:
    began = time.perf_counter()
    failed = events = 0
    jobs = [(seed, arguments.steps) for seed in range(arguments.first, arguments.first + arguments.seeds)]
    with multiprocessing.Pool(arguments.jobs) as pool:
        for result in pool.imap_unordered(_run, jobs):
            failed += report(result, arguments.steps)
            events += result.events
    took_s = time.perf_counter() - began
    print(f"{len(jobs)} seeds, {failed} failed, {events} events, {took_s:.1f} s")
    return 1 if failed else 0


def report(result: Result, steps: int, *, always: bool = False) -> int:
    if result.violations:
        print(f"FAILED  python -m tests.simulation --seed {result.seed} --steps {steps} --trace")
        for violation in result.violations[:10]:
            print(f"    {violation}")
    elif always:
        print(f"ok  {result.events} events, {result.answers} answers, {result.virtual_s:.1f} virtual seconds")
        print(f"    {result.digest}")
    sys.stdout.flush()
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
