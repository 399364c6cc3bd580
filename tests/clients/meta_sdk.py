"""Runs the normalisation of Meta's own Business SDK for Python, unmodified, over single values.

    python meta_sdk.py < values.json

Standard input: [{"field": KEY, "input": TEXT}], KEY being the key of user_data ("em") or "currency". Prints one list with, for
each value, {"wire": what the SDK would send for the key, null if it leaves it out} or {"error": what it raised}, and "form":
the text before hashing, where the SDK hashes.

Uses no network: a socket that is opened all the same ends the run.
"""

import hashlib
import json
import socket
import sys


def refuse(*arguments):
    raise RuntimeError("this test uses no network")


socket.socket.connect = refuse
socket.getaddrinfo = refuse

from facebook_business.adobjects.serverside.custom_data import CustomData  # noqa: E402
from facebook_business.adobjects.serverside.gender import Gender  # noqa: E402
from facebook_business.adobjects.serverside.normalize import Normalize  # noqa: E402
from facebook_business.adobjects.serverside.user_data import UserData  # noqa: E402

# The names of the constructor's arguments.
USER_DATA = {
    "em": "email", "ph": "phone", "fn": "first_name", "ln": "last_name", "db": "date_of_birth", "ct": "city", "st": "state",
    "zp": "zip_code", "country": "country_code", "external_id": "external_id", "dobd": "dobd", "dobm": "dobm", "doby": "doby",
    "madid": "madid", "client_ip_address": "client_ip_address", "fbc": "fbc", "fbp": "fbp",
}
UNHASHED = {"external_id", "madid", "client_ip_address", "fbc", "fbp", "currency"}
GENDERS = {gender.value: gender for gender in Gender}


def sent(field, text):
    """What stands in the payload for the key."""
    if field == "currency":
        return CustomData(currency=text).normalize().get("currency")
    if field == "ge":
        # The constructor takes nothing but its two words; others reach the SDK's rule only by its front door for texts.
        if text not in GENDERS:
            return Normalize.normalize_field("ge", text)
        wire = UserData(gender=GENDERS[text]).normalize().get("ge")
    else:
        wire = UserData(**{USER_DATA[field]: text}).normalize().get(field)
    return wire[0] if isinstance(wire, list) else wire


def answer(field, text):
    try:
        wire = sent(field, text)
    except (TypeError, ValueError) as error:
        return {"error": type(error).__name__}
    if field in UNHASHED or wire is None:
        return {"wire": wire}
    form = Normalize.normalize_field_skip_hashing(field, text)
    # A digest that was one before is passed on.
    if wire not in (form, hashlib.sha256(form.encode("utf-8")).hexdigest()):
        raise AssertionError(f"{field}: the SDK's form and its digest do not belong together")
    return {"wire": wire, "form": form}


print(json.dumps([answer(value["field"], value["input"]) for value in json.load(sys.stdin)]))
