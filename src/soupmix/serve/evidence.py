"""One store of evidence per profile: what a person chose and said, as measured, and the weights that were inferred of it.

Texts are not kept, only their traits. Every statement names tenant and profile together, and whoever changes something first
takes the next version of the profile's learning: two that change at once come one after the other, and what is counted holds.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, and_, func, insert, select
from sqlalchemy.exc import IntegrityError

from soupmix.errors import PreferenceError
from soupmix.openai.errors import HttpError
from soupmix.preference import Signal, Traits
from soupmix.preference.kept import TraitsFields
from soupmix.serve.tables import EVIDENCE, LEARNING, QUESTIONS
from soupmix.weights import Weights

__all__ = ["UNSETTLED", "Entry", "EvidenceChange", "EvidenceStore", "Learning", "OfTopic", "OpenQuestion", "Provenance"]

UNSETTLED: Final = ""
"""The basis of weights that rest on nothing: evidence has changed since, or there was none yet."""

_OPEN: Final = 16  # questions of a profile that wait for their answers; the oldest is dropped

Because = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a piece of evidence comes from.

    Attributes:
        adapters: digest of the set of adapters that the server held. base: of its base; "" where no map says it.
        request: id of the request that brought it. received: milliseconds since 1970.
    """

    adapters: str
    base: str
    request: str
    received: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A piece of evidence as it is kept: the signal, the traits by which it was measured, where it comes from."""

    signal: Signal
    traits: Traits
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {"signal": self.signal.to_dict(), "traits": self.traits.to_dict(), **asdict(self.provenance)}


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question that was shown: the measured traits of its two answers, the traits themselves, and what it was about."""

    id: str
    answers: tuple[Mapping[str, float], ...]
    traits: Traits
    topic: str | None


@dataclass(frozen=True, slots=True)
class OfTopic:
    """What was inferred for when a topic is spoken about, where that is not as the person is.

    Attributes:
        weights, because: as of `Learning`.
        others: what evidence of everything else counts for there, from 0 to 1.
    """

    weights: Weights
    because: Because
    others: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"weights": dict(self.weights), "because": [dict(each) for each in self.because], "others": self.others}


@dataclass(frozen=True, slots=True)
class Learning:
    """What a profile has learned.

    Attributes:
        version: counts changes of evidence and settings; 0 if nothing was ever learned.
        frozen: nothing is learned, and weights stay. listens: whether cues in conversations are evidence.
        most: what an inferred weight may be at most, for adapters of which the person says so.
        weights: inferred, without those that somebody chose. because: which evidence moved what.
        topics: the same of topics that depart from that. topic: whose `weights` these are, None for nobody's in particular.
        basis: digest of everything else that they rest on: evidence for one policy is no weight under another. `UNSETTLED` if
            their evidence has changed.
    """

    version: int = 0
    frozen: bool = False
    listens: bool = False
    most: Weights = Weights()  # noqa: RUF009  # never changed
    weights: Weights = Weights()  # noqa: RUF009
    because: Because = ()
    basis: str = UNSETTLED
    topics: Mapping[str, OfTopic] = field(default_factory=dict)
    topic: str | None = None

    def about(self, topic: str | None) -> "Learning":
        """With the weights of a topic, if it has its own."""
        own = None if topic is None else self.topics.get(topic)
        return self if own is None else replace(self, weights=own.weights, because=own.because, topic=topic)


class EvidenceChange:
    """A change under way, in one transaction, of a version that nobody else can take.

    Attributes:
        learning: as it was before, but for its version.
    """

    def __init__(self, connection: Connection, tenant: str, profile: str, learning: Learning) -> None:
        self._connection, self._tenant, self._profile, self.learning = connection, tenant, profile, learning

    def add(self, entry: Entry, most: int) -> None:
        """Keep a piece of evidence.

        Raises:
            HttpError: 409, its id is known ("replayed"), there are too many ("too-much-evidence"), or too many of this
                source ("source-full").
        """
        source = entry.signal.source
        held, of_source = self._counted(source)
        if held >= most:
            raise HttpError(
                f"there are {held} pieces of evidence already, and {most} is the most; forget some first",
                status=409,
                reason="too-much-evidence",
            )
        if of_source >= (most + 1) // 2:
            raise HttpError(
                f"{of_source} pieces of evidence came from this source already, and half of {most} is the most of one; "
                "forget some first",
                status=409,
                reason="source-full",
            )
        try:
            with self._connection.begin_nested():
                self._connection.execute(insert(EVIDENCE).values(**self._at(), **_columns(entry)))
        except IntegrityError:
            raise HttpError(
                f"the evidence {entry.signal.id!r} is known already; each counts once, so give a new one a new id",
                status=409,
                reason="replayed",
                param="id",
            ) from None
        self._connection.execute(QUESTIONS.delete().where(self._place(QUESTIONS), QUESTIONS.c.id == entry.signal.id))
        self._unsettle()

    def replace(self, entry: Entry) -> None:
        """Correct a piece of evidence. Raises `HttpError` 404 as `EvidenceStore.entry`."""
        changed = self._connection.execute(
            EVIDENCE.update().where(self._place(EVIDENCE), EVIDENCE.c.id == entry.signal.id).values(**_columns(entry))
        )
        if not changed.rowcount:
            raise _unknown(entry.signal.id)
        self._unsettle()

    def forget(self, name: str | None) -> None:
        """Forget a piece of evidence, or everything: questions that wait too. Raises `HttpError` 404 as `EvidenceStore.entry`."""
        if name is None:
            for table in (EVIDENCE, QUESTIONS):
                self._connection.execute(table.delete().where(self._place(table)))
        elif not self._connection.execute(
            EVIDENCE.delete().where(self._place(EVIDENCE), EVIDENCE.c.id == name)
        ).rowcount:
            raise _unknown(name)
        self._unsettle()

    def set(self, **values: Any) -> None:
        """Change settings, or what was inferred: columns by name."""
        self._connection.execute(LEARNING.update().where(self._place(LEARNING)).values(**values))

    def _unsettle(self) -> None:
        """Weights rest on other evidence now: whoever uses them next settles them, if nobody can at once."""
        self.set(basis=UNSETTLED)

    def _counted(self, source: str) -> tuple[int, int]:
        wanted = select(func.count(), func.count().filter(EVIDENCE.c.source == source)).where(self._place(EVIDENCE))
        held, of_source = self._connection.execute(wanted).one()
        return held, of_source

    def _at(self) -> dict[str, str]:
        return {"tenant": self._tenant, "profile": self._profile}

    def _place(self, table: Table) -> ColumnElement[bool]:
        return _place(table, self._tenant, self._profile)


class EvidenceStore:
    """The evidence of all profiles. Safe to share between threads; what a method has returned is on the disk."""

    def __init__(self, database: Engine) -> None:
        self._database = database

    def learning(self, tenant: str, profile: str) -> Learning:
        """What a profile has learned; nothing of one that does not exist."""
        with self._database.connect() as connection:
            row = connection.execute(select(LEARNING).where(_place(LEARNING, tenant, profile))).first()
        return Learning() if row is None else _learning(row)

    def entries(self, tenant: str, profile: str) -> list[Entry]:
        """All evidence, in the order in which it came."""
        wanted = select(EVIDENCE).where(_place(EVIDENCE, tenant, profile))
        with self._database.connect() as connection:
            return [_entry(row) for row in connection.execute(wanted.order_by(EVIDENCE.c.received, EVIDENCE.c.id))]

    def entry(self, tenant: str, profile: str, name: str) -> Entry:
        """One piece of evidence. Raises `HttpError`: 404, this profile has none of that id (reason "no-such-evidence")."""
        wanted = select(EVIDENCE).where(_place(EVIDENCE, tenant, profile), EVIDENCE.c.id == name)
        with self._database.connect() as connection:
            row = connection.execute(wanted).first()
        if row is None:
            raise _unknown(name)
        return _entry(row)

    def question(self, tenant: str, profile: str, name: str) -> OpenQuestion:
        """A question that waits for its answer.

        Raises:
            HttpError: 409, it was answered already ("replayed"); 404, this profile was not asked it, or too long ago
                ("no-such-question").
        """
        wanted = select(QUESTIONS).where(_place(QUESTIONS, tenant, profile), QUESTIONS.c.id == name)
        answered = select(EVIDENCE.c.id).where(_place(EVIDENCE, tenant, profile), EVIDENCE.c.id == name)
        with self._database.connect() as connection:
            row, known = connection.execute(wanted).first(), connection.execute(answered).first()
        if known is not None:
            raise HttpError(
                f"the question {name!r:.80} was answered already; correct that answer instead",
                status=409,
                reason="replayed",
                param="question",
            )
        if row is None:
            raise HttpError(
                f"this profile was not asked a question {name!r:.80}, or too long ago; ask for the next one",
                status=404,
                reason="no-such-question",
                param="question",
            )
        return OpenQuestion(row.id, tuple(row.answers), _traits(row.traits), row.topic)

    def ask(self, tenant: str, profile: str, question: OpenQuestion) -> None:
        """Remember a question until it is answered; of too many the oldest is dropped.

        Raises:
            HttpError: 404, there is no such profile any more (reason "no-such-profile").
        """
        here = _place(QUESTIONS, tenant, profile)
        kept = select(QUESTIONS.c.id).where(here).order_by(QUESTIONS.c.asked.desc(), QUESTIONS.c.id).limit(_OPEN - 1)
        values = {
            "tenant": tenant,
            "profile": profile,
            "id": question.id,
            "answers": [dict(each) for each in question.answers],
            "traits": question.traits.to_dict(),
            "topic": question.topic,
            "asked": time.time_ns(),
        }
        try:
            with self._database.begin() as connection:
                connection.execute(QUESTIONS.delete().where(here, QUESTIONS.c.id.not_in(kept)))
                connection.execute(insert(QUESTIONS).values(values))
        except IntegrityError:
            raise _no_profile(profile) from None

    def waiting(self, tenant: str, profile: str) -> list[str]:
        """Ids of the questions that wait for their answers, the latest first."""
        wanted = select(QUESTIONS.c.id).where(_place(QUESTIONS, tenant, profile)).order_by(QUESTIONS.c.asked.desc())
        with self._database.connect() as connection:
            return list(connection.scalars(wanted))

    def change(self, tenant: str, profile: str, version: int | None) -> "_Changing":
        """Change something: `with store.change(...) as change`. All of it happens, or nothing.

        Args:
            version: which one is changed; None, whichever it is.

        Raises:
            HttpError: 404, no such profile ("no-such-profile"); 412, it is another version by now ("changed-meanwhile").
        """
        return _Changing(self._database, tenant, profile, version)

    def settle(self, tenant: str, profile: str, version: int, **inferred: Any) -> bool:
        """Write down what was inferred of a version, unless there is another by now; whether it was written."""
        here = and_(_place(LEARNING, tenant, profile), LEARNING.c.version == version)
        with self._database.begin() as connection:
            return bool(connection.execute(LEARNING.update().where(here).values(**inferred)).rowcount)


class _Changing:
    def __init__(self, database: Engine, tenant: str, profile: str, version: int | None) -> None:
        self._begun, self._at, self._version = database.begin(), (tenant, profile), version

    def __enter__(self) -> EvidenceChange:
        connection = self._begun.__enter__()
        try:
            return EvidenceChange(connection, *self._at, _next_version(connection, *self._at, self._version))
        except BaseException as error:
            self._begun.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(self, *problem: Any) -> None:
        self._begun.__exit__(*problem)


def _next_version(connection: Connection, tenant: str, profile: str, version: int | None) -> Learning:
    """Take the next version: the first statement writes, so that whoever comes at the same time waits."""
    here = _place(LEARNING, tenant, profile)
    step = LEARNING.update().where(here).values(version=LEARNING.c.version + 1).returning(LEARNING)
    row = connection.execute(step).first()
    if row is None:
        first = {
            "tenant": tenant,
            "profile": profile,
            "version": 1,
            "frozen": False,
            "listens": False,
            "basis": UNSETTLED,
        }
        try:
            with connection.begin_nested():
                connection.execute(insert(LEARNING).values(**first, most={}, weights={}, because=[], topics={}))
            row = connection.execute(select(LEARNING).where(here)).one()
        except IntegrityError:  # there is no such profile, or somebody else was faster
            row = connection.execute(step).first()
            if row is None:
                raise _no_profile(profile) from None
    if version is not None and row.version != version + 1:
        raise HttpError(
            f"what profile {profile[:80]!r} knows is not the version that If-Match names; read it again",
            status=412,
            reason="changed-meanwhile",
        )
    return _learning(row)


def _place(table: Table, tenant: str, profile: str) -> ColumnElement[bool]:
    return and_(table.c.tenant == tenant, table.c.profile == profile)


def _no_profile(profile: str) -> HttpError:
    return HttpError(f"there is no profile {profile[:80]!r}", status=404, reason="no-such-profile")


def _unknown(name: str) -> HttpError:
    return HttpError(f"this profile has no evidence {name!r:.80}", status=404, reason="no-such-evidence")


def _columns(entry: Entry) -> dict[str, Any]:
    signal, of = entry.signal, entry.provenance
    return {
        "id": signal.id,
        "source": signal.source,
        "signal": signal.to_dict(),
        "traits": entry.traits.to_dict(),
        "adapters": of.adapters,
        "base": of.base,
        "request": of.request,
        "received": of.received,
    }


def _entry(row: Row[Any]) -> Entry:
    provenance = Provenance(row.adapters, row.base, row.request, row.received)
    return Entry(Signal.read(row.signal), _traits(row.traits), provenance)


def _traits(said: Mapping[str, Any]) -> Traits:
    try:
        return TraitsFields.model_validate(said).traits_of()
    except ValueError as error:
        raise PreferenceError(f"evidence in the database is damaged: {error}", reason="bad-traits") from None


def _learning(row: Row[Any]) -> Learning:
    most, weights = Weights.from_micro(row.most), Weights.from_micro(row.weights)
    topics = {
        name: OfTopic(Weights.from_micro(each["weights"]), each["because"], each["others"])
        for name, each in row.topics.items()
    }
    return Learning(row.version, row.frozen, row.listens, most, weights, row.because, row.basis, topics)
