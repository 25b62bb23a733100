"""What operators rely on, on live servers.

Each promise has at least one scenario, with figures whose names begin with its number:

- O1: every refusal of a full queue is counted.
- O2: what callers experience raises an alert, for as long as it lasts.
- O3: what is served is shown wherever an operator looks, and a misspelled setting is refused.
- O4: several models and engines in one server are told apart.
- O5: probes need no proxy and no port that is turned off.
- O6: all services listen on IPv6.
- O7: a wrong setting is one line of log, and the runbook's commands run as they are printed.
- O8: callers who leave free their slots, and a signal to any process ends the server without a loss.
- O9: the chart's examples render, and combinations that cannot work do not.
- O10: each model has adapters of its own, in all of its engines and after crashes; removed ones leave no metrics.
"""
