"""Addresses as people set them wrong."""

# What no answer may hold: what stands for a password, or a part of one.
CANARY = "c4nary"
# How an address can be wrong, whatever it is for; some have a password with a character that is
# not encoded.
BROKEN = [
    f"scheme://jane:pw@{CANARY}:pass@host/1",
    f"scheme://jane:pw@{CANARY}/pass@host/1",
    f"scheme://jane:pw@{CANARY}?pass@host/1",
    f"scheme://jane:pw@{CANARY}#pass@host/1",
    f"scheme://jane:pw@[{CANARY}@host/1",
    f"scheme://jane:{CANARY}@host:PORT/1",
    f"scheme://jane:{CANARY}@host:/1",
    f"scheme://jane:{CANARY}@host:0/1",
    f"scheme://jane:{CANARY}@host:65536/1",
    f"scheme://jane:{CANARY}@host:-1/1",
    f"scheme://jane:{CANARY}@host:5\u0663/1",
    f"scheme://jane:{CANARY}@${{{{Service.HOST}}}}:${{{{Service.PORT}}}}/1",
    f"scheme://${{{{USER}}}}:{CANARY}@host:1/1",
    f"scheme://jane:{CANARY}@$HOST/1",
    f"scheme://jane:{CANARY}@<host>/1",
    f"scheme://jane:{CANARY}@one:5432,two:5432/1",
    f"scheme://jane:{CANARY}@one,two/1",
    f"scheme://jane:{CANARY}@ho st/1",
    f"scheme://jane:{CANARY}@-host/1",
    f"scheme://jane:{CANARY}@a..b/1",
    f"scheme://jane:{CANARY}@{'a' * 64}/1",
    f"scheme://jane:{CANARY}@{'ü' * 60}/1",
    f"scheme://jane:{CANARY}@[::1/1",
    f"scheme://jane:{CANARY}@[{CANARY}]/1",
    f"scheme://jane:{CANARY}@::1/1",
    f"scheme://jane:{CANARY}@/1",
    f"scheme:/jane:{CANARY}@host/1",
    f"scheme//jane:{CANARY}@host/1",
    f"jdbc:scheme://host/1?user=jane&password={CANARY}",
    f"host=host password={CANARY}",
    f"'scheme://jane:{CANARY}@host/1'",
    "${{Service.URL}}",
    "host",
]
