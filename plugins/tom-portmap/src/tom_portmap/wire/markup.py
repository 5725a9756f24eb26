"""XML from a gateway, read with bounds: no document type, no entities, little depth, few elements."""

from __future__ import annotations

from typing import Final
from xml.parsers import expat

import attrs

from tom_portmap.errors import WireError

MAX_DEPTH: Final = 24  # a device description has a depth of about ten
MAX_ELEMENTS: Final = 2000
MAX_TEXT: Final = 1024  # characters of one element's text; what we read are URLs and names


@attrs.define
class Element:
    """One element: its name without namespace, its text without white space around, its children in order."""

    name: str
    text: str = ""
    children: list[Element] = attrs.Factory(list)

    def child(self, name: str) -> Element | None:
        """The first child of a name."""
        return next((child for child in self.children if child.name == name), None)

    def text_of(self, name: str) -> str:
        """The text of the first child of a name, empty where there is none."""
        found = self.child(name)
        return "" if found is None else found.text

    def all(self, name: str) -> list[Element]:
        """Every element of a name within, in document order."""
        found: list[Element] = []
        waiting = [self]
        while waiting:
            element = waiting.pop()
            if element.name == name:
                found.append(element)
            waiting.extend(reversed(element.children))
        return found


def read_xml(data: bytes) -> Element:
    """The root element of a document; raises WireError for all that is not one, or is larger than the bounds."""
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.characters
    # Both are how an XML bomb or an external entity begins; no gateway needs them.
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    parser.EntityDeclHandler = reader.refuse_doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as exc:
        raise WireError("malformed", f"no XML: {exc}") from None
    except ValueError as exc:  # an encoding that Python does not know
        raise WireError("malformed", f"no XML: {exc}") from None
    except LookupError as exc:
        raise WireError("malformed", f"no XML: {exc}") from None
    if reader.root is None:
        raise WireError("malformed", "no XML element")
    return reader.root


class _Reader:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, _attributes: object) -> None:
        self._count += 1
        if len(self._open) >= MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise WireError("too large", "an XML document of too many elements")
        element = Element(name.rpartition(" ")[2])
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, _name: str) -> None:
        element = self._open.pop()
        element.text = element.text.strip()

    def characters(self, text: str) -> None:
        element = self._open[-1]
        if len(element.text) + len(text) > MAX_TEXT:
            if not text.strip():
                return  # an indented document has much white space between elements
            raise WireError("too large", f"an XML element of more than {MAX_TEXT} characters")
        element.text += text

    def refuse_doctype(self, *_args: object) -> None:
        raise WireError("malformed", "an XML document with a document type")
