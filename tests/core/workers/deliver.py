"""Deliver every notification of the job from several threads at once, when told to go."""

from __future__ import annotations

import random
import threading

from shop import Effects, deliver, hear, job, make_kit, say


def main():
    task = job()
    kit = make_kit(task, Effects(task["effects"]))
    statuses, start = [], threading.Barrier(task["threads"])

    def work(seed):
        mine = list(task["deliveries"])
        random.Random(seed).shuffle(mine)
        start.wait(30)
        statuses.extend(deliver(kit, one) for one in mine)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(task["threads"])]
    say("ready")
    hear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(statuses)
    kit.close()


main()
