"""What an operator hands to a site, so that it can join: a file, or a line of a chat.

Adversary: whoever reads or changes the mail. What was changed has another fingerprint, which two
people compare over the telephone; and the token in it, which a thief could use first, lets nobody
take part before the operator has heard the fingerprint of the key that came with it.
"""
