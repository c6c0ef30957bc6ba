"""What the processes of a server and of a node say: one format, one clock, files that are rotated.

A line that somebody should act on ends with a code of docs/troubleshooting.md and its cure. Whoever
has one gives it as ``extra={"code": ...}``; figures for programs go into ``extra={"figures":
{...}}``. Nothing here ever fails what it tells of: a line that cannot be written is lost.
"""

from fedgrpo.federation.deployment.log.taking import log_here, log_to_stderr

__all__ = ["log_here", "log_to_stderr"]
