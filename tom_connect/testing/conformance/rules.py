"""The rules that checks look after, and the error of one that is broken."""

from __future__ import annotations

import attrs


@attrs.frozen
class Rule:
    """One rule of a contract: `name`; `text`, what holds; `where`, the name in `tom_connect.abc` that says so."""

    name: str
    text: str
    where: str


class ConformanceError(AssertionError):
    """An implementation breaks a rule of its contract. Attributes: `rule`; `seen`, what it did instead."""

    def __init__(self, rule: Rule, seen: str) -> None:
        super().__init__(
            f"{rule.text}\n  rule: {rule.name}\n  read: tom_connect.abc.{rule.where} (docs/reference/hooks.md)"
            f"\n  seen: {seen}"
        )
        self.rule = rule
        self.seen = seen


# Of every object that a hook returns

KIND = Rule("kind", "The factory returns an object of the hook's contract.", "PluginObject")
NAME = Rule("name", "An object's name is a text; an empty one stands for the plugin's.", "PluginObject.name")
FACTORY_PROMPT = Rule("factory-prompt", "A factory makes its object and does not wait for anything.", "PluginObject")
STARTS = Rule("starts", "start() returns within 10 seconds and does not fail where all that it needs is there.",
              "PluginObject.start")  # fmt: skip
CLOSES = Rule("closes", "aclose() does not raise, also after a start() that failed, was cancelled or never began.",
              "PluginObject.aclose")  # fmt: skip
CLOSES_SOON = Rule("closes-soon", "aclose() is done within 0.8 seconds; an endpoint waits no longer.",
                   "PluginObject.aclose")  # fmt: skip
LEAVES_NO_TASK = Rule("leaves-no-task", "Nothing runs after aclose().", "PluginObject.aclose")
LEAVES_NO_SOCKET = Rule("leaves-no-socket", "No socket is open after aclose().", "PluginObject.aclose")
NOTHING_UNHANDLED = Rule(
    "nothing-unhandled",
    "No task fails unseen and nothing raises out of a callback of the loop.",
    "PluginContext.create_task",
)
NOT_GLOBAL = Rule("not-global", "Objects of two endpoints in one process know nothing of each other.", "PluginContext")
NO_BLOCKING = Rule("no-blocking", "The event loop never stands still, not for 0.1 seconds.", "PluginObject")
CANCELS = Rule("cancels", "Who is cancelled ends at once, and by the cancellation.", "PluginObject")
LIFE = (KIND, NAME, FACTORY_PROMPT, STARTS, CLOSES, CLOSES_SOON, LEAVES_NO_TASK, LEAVES_NO_SOCKET, NOTHING_UNHANDLED,
        NOT_GLOBAL, NO_BLOCKING, CANCELS)  # fmt: skip

# Of discovery

STAGE = Rule("stage", "stage is a finite number of seconds, 0 or more; serverless and stage_is_fixed are booleans.",
             "Discovery.stage")  # fmt: skip
ITERATES = Rule("iterates", "resolve() returns an asynchronous iterator at once: no coroutine, no list.",
                "Discovery.resolve")  # fmt: skip
FOUND_TYPE = Rule("found-type", "What is found comes as FoundAddr.", "Discovery.resolve")
FOUND_NODE = Rule("found-node", "What is found is the node that was asked for.", "FoundAddr")
FOUND_SOURCE = Rule("found-source", "What is found names its source.", "FoundAddr")
FOUND_ADDR = Rule("found-addr", "A node that can be found is found, with the addresses that it has.",
                  "Discovery.resolve")  # fmt: skip
SIGNED_TIME = Rule("signed-time", "What its owner signed carries the time of the signature.", "FoundAddr")
UNSIGNED_TIME = Rule("unsigned-time", "What nobody signed carries no time: it would win over what was signed.",
                     "FoundAddr")  # fmt: skip
NEWEST_LAST = Rule("newest-last", "Better things come later: the newest record is the last.", "Discovery.resolve")
ENDS = Rule("ends", "A search ends when nothing more will come, whether the node was found or not.",
            "Discovery.resolve")  # fmt: skip
UNKNOWN_ENDS = Rule("unknown-ends", "A search for a node that nobody knows ends, finds nothing and does not raise.",
                    "Discovery.resolve")  # fmt: skip
CLOSING_CANCELS = Rule("closing-cancels", "Closing the iterator cancels the work; no task of it goes on.",
                       "Discovery.resolve")  # fmt: skip
SIDE_BY_SIDE = Rule("side-by-side", "Several searches at once don't disturb each other.", "Discovery.resolve")
DISCOVERY_ERROR = Rule("discovery-error", "Where nothing could be asked, DiscoveryError says why.",
                       "Discovery.resolve")  # fmt: skip
FORGED = Rule("forged", "What the node did not sign is never given as signed.", "FoundAddr")
DISCOVERY = (STAGE, ITERATES, FOUND_TYPE, FOUND_NODE, FOUND_SOURCE, FOUND_ADDR, SIGNED_TIME, UNSIGNED_TIME, NEWEST_LAST,
             ENDS, UNKNOWN_ENDS, CLOSING_CANCELS, SIDE_BY_SIDE, DISCOVERY_ERROR, FORGED)  # fmt: skip

# Of publishers

TIMES = Rule("times", "republish_after and timeout are finite numbers of seconds above 0; serverless is a boolean.",
             "Publisher.republish_after")  # fmt: skip
REPORTS = Rule("reports", "publish() returns a PublishReport that names who stored and counts where, 1 or more.",
               "PublishReport")  # fmt: skip
STORES = Rule("stores", "After publish() the record can be found, with all its addresses.", "Publisher.publish")
REPLACES = Rule("replaces", "A newer record takes the place of the older one.", "Publisher.publish")
REPEATS = Rule("repeats", "The same record can be published again.", "Publisher.publish")
NEWEST_WINS = Rule("newest-wins", "An older record never takes the place of a newer one as it is.",
                   "Publisher.publish")  # fmt: skip
CARRIES_ALL = Rule("carries-all", "A record of the largest size is stored whole.", "Publisher.publish")
PUBLISH_CANCELS = Rule("publish-cancels", "A cancelled publish() leaves no task, and the next one works.",
                       "Publisher.publish")  # fmt: skip
PUBLISH_ERROR = Rule("publish-error", "Where nobody stored the record, NetworkError says why, within `timeout`.",
                     "Publisher.publish")  # fmt: skip
PUBLISHER = (TIMES, REPORTS, STORES, REPLACES, REPEATS, NEWEST_WINS, CARRIES_ALL, PUBLISH_CANCELS,
             PUBLISH_ERROR)  # fmt: skip

# Of relay transports

SCHEMES = Rule("schemes", "schemes is a set of lower-case URL schemes, that of its relays among them.",
               "RelayTransport.schemes")  # fmt: skip
HOME = Rule("home", "home_relay() is one Watch, None at first, and comes to be the configured relay.",
            "RelayTransport.home_relay")  # fmt: skip
STANDBY = Rule("standby", "standby_relay() is one Watch; it never names the home relay.",
               "RelayTransport.standby_relay")  # fmt: skip
RELAYS = Rule("relays", "relays() tells of each relay in use or wanted as RelayInfo, the home relay first.",
              "RelayTransport.relays")  # fmt: skip
PROBES = Rule("probes", "probes() gives ProbeServer values.", "RelayTransport.probes")
SENDS = Rule("sends", "send() returns a boolean and never raises, whatever it is given and whenever.",
             "RelayTransport.send")  # fmt: skip
SEND_PROMPT = Rule("send-prompt", "send() does not wait for anything.", "RelayTransport.send")
SEND_BOUNDED = Rule("send-bounded", "The queue of send() is bounded; it returns False where datagrams are dropped.",
                    "RelayTransport.send")  # fmt: skip
ARRIVES = Rule("arrives", "Datagrams reach the node that they are for, from 1 to 1452 bytes, one or many at a time.",
               "RelayTransport.set_receiver")  # fmt: skip
ORDER = Rule("order", "Datagrams arrive in the order in which they were sent.", "RelayTransport.set_receiver")
SENDER = Rule("sender", "What arrives comes with its relay, its sender's NodeId and ECN bits from 0 to 3.",
              "RelayTransport.set_receiver")  # fmt: skip
OPENS = Rule("opens", "open() lets a node that has no relay of its own reach one that has.", "RelayTransport.open")
TRUSTS_NOBODY = Rule(
    "trusts-nobody",
    "A relay that only a peer named does not lead into networks that are ours alone.",
    "RelayTransport.open",
)
CALLS = Rule("calls", "open(), attest() and network_changed() never raise, whatever they are given.",
             "RelayTransport")  # fmt: skip
MOVES = Rule("moves", "After network_changed() datagrams pass again.", "RelayTransport.network_changed")
RELAY_TRANSPORT = (SCHEMES, HOME, STANDBY, RELAYS, PROBES, SENDS, SEND_PROMPT, SEND_BOUNDED, ARRIVES, ORDER, SENDER,
                   OPENS, TRUSTS_NOBODY, CALLS, MOVES)  # fmt: skip

# Of datagram protocols

PRIORITY = Rule("priority", "priority is a whole number.", "DatagramProtocol.priority")
CLAIMS_OWN = Rule("claims-own", "claims() is true for its own datagrams, whatever comes after their first 8 bytes.",
                  "DatagramProtocol.claims")  # fmt: skip
CLAIMS_NO_OTHER = Rule(
    "claims-no-other",
    "claims() is false for STUN messages, for other protocols' datagrams and for most of what is random.",
    "DatagramProtocol.claims",
)
CLAIMS_PROMPT = Rule("claims-prompt", "claims() returns a boolean, is quick and never raises, for 0 to 8 bytes.",
                     "DatagramProtocol.claims")  # fmt: skip
TAKES_ALL = Rule("takes-all", "datagrams_received() raises nothing, whatever comes and whenever.",
                 "DatagramProtocol.datagrams_received")  # fmt: skip
TAKES_PROMPT = Rule("takes-prompt", "datagrams_received() does not block.", "DatagramProtocol.datagrams_received")
TAKES_BOUNDED = Rule("takes-bounded", "A flood of datagrams fills no memory.", "DatagramProtocol.datagrams_received")
NO_AMPLIFIER = Rule("no-amplifier", "Nobody unproven is answered with more than three times the bytes that came.",
                    "DatagramProtocol.datagrams_received")  # fmt: skip
SEND_FAILS = Rule("send-fails", "A shared socket that drops what is sent breaks nothing.", "SharedSocket.send")
DATAGRAM_PROTOCOL = (PRIORITY, CLAIMS_OWN, CLAIMS_NO_OTHER, CLAIMS_PROMPT, TAKES_ALL, TAKES_PROMPT, TAKES_BOUNDED,
                     NO_AMPLIFIER, SEND_FAILS)  # fmt: skip
