"""What goes on, as a page and as metrics: read only, on this machine, for who has the password.

Who watches something says what is seen of it, once, as a data class; page, metrics and JSON are
made from that.
"""
