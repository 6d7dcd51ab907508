"""Whether the content of a version is what its rev stands for, so that damage at one replica does not spread.

A rev is a hash of the content. Checking it takes about as long as decoding the
body once more, and whoever believed a damaged row would hand it on as the truth.

Pure: no input or output.
"""

from __future__ import annotations

from typing import Any

from vstore.canonical import generation, revision
from vstore.codecs import Codec
from vstore.document import Version, is_marked
from vstore.errors import CodecError

UNREAD = object()
"""In place of a value that nobody has decoded yet."""


def damage(version: Version, codec: Codec | None, value: Any = UNREAD) -> str | None:
    """Why a whole row is not what its rev says; None if it is, or if that cannot be told.

    It cannot be told of a body whose codec is not known here, of pickles, which
    have no canonical form, and of a root that lost its dot in a collision.
    """
    identity = None
    if not version.deleted:
        if version.body is None:
            return "it has no body, and is neither a tombstone nor a stub"
        if codec is None or version.codec.endswith("pickle"):
            return None
        try:
            identity = codec.identity(codec.decode(version.body) if value is UNREAD else value)
        except CodecError as error:
            return str(error)
    gen = generation(version.rev)
    if version.parents:
        if version.rev == revision(gen, version.deleted, version.parents, identity):
            return None
    else:
        for actor, n, _prev in version.dots:
            if version.rev == revision(gen, version.deleted, (), identity, (actor, n)):
                return None
        if is_marked(version):
            return None
    return (
        f"its content is not what rev {version.rev} stands for: bytes of the source have changed. Run `vstore check` "
        f"there, and restore the document from a replica that has it whole."
    )
