"""Deliver one notification to a hook that has its effect and then waits to be told to end."""

from __future__ import annotations

from shop import Effects, deliver, hear, hookimpl, job, make_kit, say


class Holding(Effects):
    @hookimpl
    def on_paid(self, event):
        super().on_paid(event)
        say("inside")
        if hear() == "raise":
            raise RuntimeError("told to")


class Before(Effects):
    @hookimpl
    def on_paid(self, event):
        self.add("before", event.out_trade_no, event.attempt)


def main():
    task = job()
    kit = make_kit(task)
    kit.register(Holding(task["effects"]), name="holding")
    kit.register(Before(task["effects"]), name="before")  # the last one runs first
    say(deliver(kit, task["deliveries"][0]))
    kit.close()


main()
