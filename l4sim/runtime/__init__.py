"""What runs policies on instances, whatever time is and however messages travel.

Servers that drive engines, hosts of agents, the front end, migrations: sans-IO machines over a `Clock`, a `Transport`
and an `Executor`. The simulator gives them simulated time and modelled links; a live run the wall's clock and sockets.
"""
