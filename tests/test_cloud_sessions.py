"""What the service remembers of its streams: promises for any order of messages, and bounds."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cloud import sessions
from pipeline.cloud.service import MAX_STREAMS, Streams
from pipeline.cloud.sessions import Session, Stored, Verdict
from pipeline.cloud.wire import Answer

KEYS = st.tuples(st.integers(1, 3), st.integers(1, 3))
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["speculation", "final", "adopt", "revise"]), KEYS, st.integers(0, 1)),
    max_size=30,
)


@settings(max_examples=200, deadline=None)
@given(messages=MESSAGES)
def test_sessions_keep_their_promises_for_any_messages(messages):
    session, ended, withdrawn = Session(), {}, set()
    for kind, key, lattice in messages:
        before, digest = session, bytes([lattice])
        if kind in ("speculation", "final"):
            verdict = sessions.judge(session, key, digest, kind == "final")
            if verdict in (Verdict.NEW, Verdict.REPEATED):
                adopted = kind == "final" or (key in session.answers and session.answers[key].adopted)
                stored = session.answers.get(key) or Stored(digest, Answer(*key, f"{key} {lattice}"))
                session = sessions.remember(session, key, dataclasses.replace(stored, adopted=adopted))
                assert session.answers[key].answer.text == f"{key} {lattice}"
                assert kind == "final" or verdict is Verdict.REPEATED or key not in withdrawn
                assert sessions.judge(session, key, digest, True) is Verdict.REPEATED
        elif kind == "adopt":
            session, found = sessions.adopt(session, key)
            assert found == (key in before.answers) and (found or session == before)
        else:
            session = sessions.revise(session, key)
            withdrawn |= {(turn, n) for turn in range(1, 4) for n in range(1, 4) if (turn, n) <= key}
            assert sessions.revise(session, key) == session
        for other, stored in session.answers.items():
            if stored.adopted:
                assert ended.setdefault(other[0], other) == other, "a turn ends once"
        assert set(ended) <= {turn for turn, _ in session.answers}
        assert (session.newest, session.closed) >= (before.newest, before.closed)
        waiting = [other for other, stored in session.answers.items() if not stored.adopted]
        assert len({turn for turn, _ in waiting}) == len(waiting), "one speculation of a turn at a time"


def test_what_the_service_remembers_is_bounded():
    streams = Streams()
    for number in range(MAX_STREAMS + 5):
        streams.put(str(number), Session((1, 1)))
    assert len(streams) == MAX_STREAMS and streams.get("0") == Session() != streams.get("5")
    session = Session()
    for turn in range(100):
        session = sessions.remember(session, (turn, 1), Stored(b"", Answer(turn, 1, ""), adopted=True))
    assert len(session.answers) == sessions.MEMORY_TURNS
