"""What every table shares: the declarative base, names of constraints, types that differ by dialect."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Float, Integer, LargeBinary, MetaData, String
from sqlalchemy.orm import DeclarativeBase

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

#: SQLite gives a rowid only to plain INTEGER keys
Sequence64 = BigInteger().with_variant(Integer, "sqlite")

#: SQLite keeps the rows in the key's own tree: one tree to write instead of two
CLUSTERED = {"sqlite_with_rowid": False}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON,
        Any: JSON,
        int: BigInteger,
        float: Float,
        str: String,
        bytes: LargeBinary,
    }
