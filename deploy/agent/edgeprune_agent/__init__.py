"""The agent that runs on a board: describes it, measures models and runs them.

It is packed into one file, which `python3 FILE` runs. It needs Python 3.8 or newer, numpy and one inference runtime,
and imports nothing of edgeprune. It reads one JSON request from standard input, and writes JSON lines to standard
output:

    {"event": "progress", "text": ...}                  something to show
    {"event": "alive"}                                  nothing but a sign of life
    {"event": "mark", "at_s": ...}                      the board's clock, at an edge of an energy window
    {"event": "result", ...}                            by command, one or more
    {"event": "error", "kind": ..., "message": ...}
    {"event": "end"}                                    always last; without it the connection or the agent was lost

Commands: facts, have, measure, sustain, meter, energy, probe, nodes, evaluate, lease, release, trust; and cold and
turns, which measure and probe run in fresh processes:

    {"event": "window", "model": ..., "samples_ns": ...}    of turns, one a window
"""
