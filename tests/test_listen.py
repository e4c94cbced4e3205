"""`sotto listen`: files and raw PCM, what it prints, phrases, a downstream, and for what it apologises."""

import io
import json
import socket

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from pipeline import cli
from pipeline.decoding.biased_lexicon import BiasedLexicon
from pipeline.decoding.lattice import best_path
from pipeline.decoding.lattice_format import read_lattice
from pipeline.decoding.lexicon import LexiconWeights, lexicon_of
from pipeline.errors import UserError
from pipeline.language.class_ngram import ClassNgram
from pipeline.runtime import listen as listening
from pipeline.runtime.audio import read_audio
from pipeline.runtime.bundle import load_packed
from pipeline.runtime.downstream import Answer
from pipeline.runtime.endpoint_score import RULE
from pipeline.runtime.engine import Engine
from pipeline.runtime.events import FinalEnd, Partial, Revise, SpeculativeEnd
from pipeline.runtime.phrases import PhraseBonus, bias_of, find_bonus, find_prefixes, read_phrases
from pipeline.runtime.sources import file_chunks, in_real_time, pcm_chunks
from tests.tiny_model import noise, write_tiny


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model") / "model.sotto")


@pytest.fixture(scope="module")
def engine(model_file):
    return Engine(load_packed(model_file), endpointer=RULE)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    samples_S = noise(4)
    soundfile.write(folder / "mono.wav", samples_S, 16_000, subtype="PCM_16")
    soundfile.write(folder / "stereo.flac", np.stack([samples_S, samples_S], 1), 44_100)
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 8_000)
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "nan.wav", np.array([0, np.nan] * 4_000), 16_000, subtype="FLOAT")
    (folder / "text.wav").write_text("this is no audio")
    return folder


@pytest.fixture
def sotto(model_file):
    """listen(…) in this process -> (exit code, stdout, stderr)."""

    def run(*arguments, pcm=b""):
        command = ["listen", *map(str, arguments), "--model", str(model_file)]
        result = CliRunner().invoke(cli.app, command, input=pcm)
        if isinstance(result.exception, UserError):
            return 2, result.stdout, str(result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


def as_pcm(samples_SC):
    return (np.asarray(samples_SC) * 32_768).round().clip(-32_768, 32_767).astype("<i2").tobytes()


def test_json_has_every_event_and_lattices(sotto, recordings):
    code, output, _ = sotto(recordings / "mono.wav", "--json")
    records = [json.loads(line) for line in output.splitlines()]
    assert code == 0 and {"partial", "final_end"} <= {record["event"] for record in records}
    for record in records:
        fields = {"event", "turn", "revision", "time_ms", "text"}
        assert fields == set(record) - {"lattice"}
        assert ("lattice" in record) == (record["event"] != "partial")
        if "lattice" in record:
            lattice = read_lattice(listening.base64.b64decode(record["lattice"]))
            assert " ".join(best_path(lattice).words) == record["text"]
    times = [record["time_ms"] for record in records]
    assert times == sorted(times) and times[-1] <= 4_080


@pytest.mark.parametrize("chunk_ms", [20, 33, 640])
def test_chunks_and_the_way_in_change_nothing(sotto, recordings, chunk_ms):
    """A file, PCM of the same file, two channels of it; real time is only slower."""
    expected = sotto(recordings / "mono.wav", "--json")
    samples_S, _ = soundfile.read(recordings / "mono.wav")
    assert sotto(recordings / "mono.wav", "--json", "--chunk-ms", chunk_ms) == expected
    assert sotto("-", "--json", "--chunk-ms", chunk_ms, pcm=as_pcm(samples_S)) == expected
    doubled = as_pcm(np.stack([samples_S, samples_S], 1))
    assert sotto("-", "--json", "--channels", 2, "--chunk-ms", chunk_ms, pcm=doubled) == expected


def test_plain_output_is_a_line_for_each_turn(sotto, recordings):
    _, records, _ = sotto(recordings / "stereo.flac", "--json")
    finals = [r for r in map(json.loads, records.splitlines()) if r["event"] == "final_end" and r["text"]]
    code, output, _ = sotto(recordings / "stereo.flac")
    assert code == 0 and output.splitlines() == [final["text"] for final in finals]


def test_silence_and_an_empty_input_are_no_errors(sotto, recordings):
    assert sotto(recordings / "silent.wav")[0] == 0
    assert sotto(recordings / "empty.wav") == sotto("-") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "pcm", "words"),
    [
        (["absent.wav"], b"", "no such file"),
        (["text.wav"], b"", "not a readable audio file"),
        (["nan.wav"], b"", "not numbers"),
        (["mono.wav", "--chunk-ms", "0"], b"", "chunk_ms"),
        (["mono.wav", "--from-s", "-1"], b"", "from_s"),
        (["mono.wav", "--phrases", "absent.txt"], b"", "phrases"),
        (["-", "--channels", "0"], b"ab", "channels"),
        (["-", "--rate-hz", "10"], b"ab", "sample_rate_hz"),
        (["-"], b"RIFF\0\0\0\0WAVE", "WAV file"),
        (["-", "--channels", "2"], bytes(4_001), "inside a sample"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_exit_code_2(sotto, recordings, monkeypatch, arguments, pcm, words):
    monkeypatch.chdir(recordings)
    code, _, message = sotto(*arguments, pcm=pcm)
    assert code == 2 and words in message and "\n" not in message


def test_what_was_said_before_the_input_broke_off_is_still_said(sotto, recordings):
    samples_S, _ = soundfile.read(recordings / "mono.wav")
    whole = sotto("-", pcm=as_pcm(samples_S))
    code, output, message = sotto("-", pcm=as_pcm(samples_S) + b"!")
    assert code == 2 and output == whole[1] != "" and "inside a sample" in message


class Trickle(io.RawIOBase):
    """A pipe that gives 0 < n <= asked bytes at a time."""

    def __init__(self, data, drawn):
        self._data, self._drawn = io.BytesIO(data), drawn

    def read(self, size=-1):
        return self._data.read(int(self._drawn.integers(1, size + 1)) if size > 0 else size)


@pytest.mark.parametrize("seed", range(200))
def test_random_bytes_are_samples_or_a_sentence(seed):
    drawn = np.random.default_rng(seed)
    data = drawn.bytes(int(drawn.integers(0, 3_000)))
    channels, chunk_ms = int(drawn.integers(1, 5)), int(drawn.integers(1, 50))
    rate_hz = int(drawn.choice([8_000, 16_000, 44_100]))
    got = []
    try:
        for samples_S in pcm_chunks(Trickle(data, drawn), chunk_ms, rate_hz, channels):
            assert samples_S.dtype == np.float32 and samples_S.ndim == 1
            got.append(samples_S)
        assert len(data) % (2 * channels) == 0
    except UserError as error:
        assert "inside a sample" in str(error) and len(data) % (2 * channels)
    whole = len(data) // (2 * channels)
    samples_S = np.concatenate(got)
    assert np.abs(samples_S).max(initial=0) <= 3  # a resampler overshoots
    if rate_hz == 16_000:
        direct = np.frombuffer(data[: 2 * channels * whole], "<i2").reshape(-1, channels).astype(np.float32)
        assert np.allclose(samples_S, (direct / 32_768).mean(1), atol=1e-6)
    else:
        assert abs(len(samples_S) - whole * 16_000 / rate_hz) <= 2


def test_any_pcm_goes_through_the_engine(engine):
    """Full scale, clipped, constant, random: no crash, and the same events however the pipe gives it."""
    drawn = np.random.default_rng(0)
    for data in (b"\xff\x7f" * 9_000, b"\x00\x80" * 9_000, b"\x00\x80\xff\x7f" * 9_000, drawn.bytes(30_000)):
        events = list(listening.listen(engine, pcm_chunks(io.BytesIO(data), 80)))
        assert list(listening.listen(engine, pcm_chunks(Trickle(data, drawn), 333))) == events


def test_a_resampled_file_is_the_same_in_pieces(recordings):
    whole_S = np.concatenate(list(file_chunks(recordings / "stereo.flac", 60_000)))
    pieces_S = np.concatenate(list(file_chunks(recordings / "stereo.flac", 7)))
    assert np.array_equal(whole_S, pieces_S)
    assert np.allclose(whole_S, read_audio(recordings / "stereo.flac")[: len(whole_S)], atol=1e-3)


def test_real_time_takes_its_time(monkeypatch):
    now, slept = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda s: (slept.append(s), now.__setitem__(0, now[0] + s)))
    assert len(list(in_real_time([np.zeros(1_600)] * 5))) == 5
    assert sum(slept) == pytest.approx(0.5)


def test_a_terminal_sees_a_line_that_changes():
    out = io.StringIO()
    show = listening.show_live(out)
    for heard in (
        Partial(1, 0, 80, "turn"),
        SpeculativeEnd(1, 1, 160, "turn on"),
        Revise(1, 2, 240, "turn on the"),
        FinalEnd(1, 3, 320, "turn on the light"),
        Answer(1, 3, "lights.on"),
        Answer(2, 1, None),
    ):
        show(heard)
    clear = listening.CLEAR_LINE
    expected = ["", "turn …", "turn on ?", "turn on the …", "turn on the light\n", "  → lights.on\n", ""]
    assert out.getvalue().split(clear) == expected


def test_a_downstream_answers_among_the_events(engine, recordings):
    class Words:
        def submit(self, stream_id, turn, revision, lattice_bytes):
            self.said = " ".join(best_path(read_lattice(lattice_bytes)).words)

        def cancel(self, stream_id, turn, revision):
            self.said = None

        def adopt(self, stream_id, turn, revision):
            return self.said.upper()

    chunks = file_chunks(recordings / "mono.wav", 80)
    heard = list(listening.listen(engine, chunks, downstream=Words()))
    finals = [event for event in heard if isinstance(event, FinalEnd)]
    answers = [answer for answer in heard if isinstance(answer, Answer)]
    assert finals and [answer.result for answer in answers] == [final.text.upper() for final in finals]
    assert listening.as_record(answers[0])["event"] == "answer"


def test_listening_alone_opens_no_socket(sotto, recordings, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a socket")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(socket, "create_connection", forbidden)
    assert sotto(recordings / "mono.wav", "--json")[0] == 0


def test_phrases_of_a_file(model_file, tmp_path):
    tokenizer, path = load_packed(model_file).tokenizer, tmp_path / "phrases.txt"
    path.write_text("Kitchen  light\t3\n# a remark\n\n[call, play]\nanna  # behind\n[]\njazz\n")
    trie = read_phrases(path, tokenizer, PhraseBonus(1.0, 1.0, 0.0))

    def earned(text):
        node, sum_ = trie.start(), 0.0
        for token in tokenizer.encode(text):
            node, bonus = trie.step(node, token)
            sum_ += bonus
        return sum_ + trie.final(node)

    assert earned("kitchen light") == 3 * len(tokenizer.encode("kitchen light"))
    assert earned("jazz") == earned("play jazz") == len(tokenizer.encode("jazz"))
    assert earned("call anna") == len(tokenizer.encode("anna")) and earned("turn anna") == 0
    assert bias_of(["jazz"], tokenizer).num_nodes == 1 + len(tokenizer.encode("jazz"))
    path.write_text("[@contact, play]\nanna\n[@song]\njazz")
    trie = read_phrases(path, tokenizer, PhraseBonus(1.0, 1.0, 0.0), None, {"contact": ["call"], "song": []})
    assert earned("call anna") == earned("play anna") == len(tokenizer.encode("anna")) and earned("anna") == 0
    assert earned("turn jazz") == len(tokenizer.encode("jazz"))
    with pytest.raises(UserError, match="line 1: no kind of name '@contact'; known are @song"):
        read_phrases(path, tokenizer, kinds={"song": []})
    for content, words in (("jazz\tmuch", "line 1"), ("jazz\n\n東京\n", "line 3"), ("jazz\t-1", "score")):
        path.write_text(content)
        with pytest.raises(UserError, match=words):
            read_phrases(path, tokenizer)
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="no readable text"):
        read_phrases(path, tokenizer)


def test_a_word_of_the_list_is_a_known_one(model_file):
    """A name that the lexicon lacks must not lose in a list what the lexicon takes for it."""
    tokenizer, bonus = load_packed(model_file).tokenizer, PhraseBonus(1.0, 1.0, 0.0)
    ngram = ClassNgram.fit([], ["kitchen", "light"], 1, 1)
    lexicon = lexicon_of(ngram, tokenizer, LexiconWeights(0.0, 0.0, 4.0))

    def earned(phrase):
        both = BiasedLexicon(bias_of([phrase], tokenizer, bonus, lexicon), lexicon)
        node, sum_ = both.start(), 0.0
        for token in tokenizer.encode(phrase):
            node, more = both.step(node, token)
            sum_ += more
        return sum_ + both.final(node)

    for phrase in ("kitchen light", "anna", "kitchen jazz", "anna call"):
        assert earned(phrase) == pytest.approx(len(tokenizer.encode(phrase)))


def test_unknown_words_of_a_phrase_are_paid_by_their_own_score(model_file):
    tokenizer = load_packed(model_file).tokenizer
    lexicon = lexicon_of(
        ClassNgram.fit([], ["kitchen", "light"], 1, 1), tokenizer, LexiconWeights(0.0, 0.0, 4.0)
    )
    bonus, num = (
        PhraseBonus(1.0, 3.0, 0.0),
        {w: len(tokenizer.encode(w)) for w in ("kitchen", "jazz", "anna")},
    )
    for phrase, known, unknown in (
        ("kitchen", num["kitchen"], 0),
        ("anna jazz", 0, num["anna"] + num["jazz"]),
        ("kitchen jazz", num["kitchen"], num["jazz"]),
        ("jazz kitchen", num["kitchen"], num["jazz"]),
    ):
        num_unknown_words = sum(word not in lexicon.words for word in phrase.split())
        worth = bias_of([phrase], tokenizer, bonus, lexicon).pending_G.max()
        assert worth == pytest.approx(known + 3 * unknown + 4 * num_unknown_words)
        assert bias_of([phrase], tokenizer, bonus).pending_G.max() == pytest.approx(known + unknown)


def test_a_long_list_pays_less_for_each_phrase_and_nothing_for_short_ones(model_file):
    """Found on dev: with one bonus for all sizes, 1,000 phrases made three more errors in ten names."""
    tokenizer, bonus = load_packed(model_file).tokenizer, PhraseBonus(1.5, 1.5, 0.5)
    alone, among = bias_of(["jazz"], tokenizer, bonus), bias_of(["jazz", *["anna"] * 7], tokenizer, bonus)
    num = len(tokenizer.encode("jazz"))
    assert alone.pending_G.max() == pytest.approx(1.5 * num)
    node = among.start()
    for token in tokenizer.encode("jazz"):
        node, _ = among.step(node, token)
    assert among.pending_G[node] == pytest.approx(max(0.0, 1.5 * num - 0.5 * np.log(8)))
    assert (
        bonus.per_token(np.array([1]), np.array([0]), 1000) == [0.0] and bias_of([], tokenizer).num_nodes == 1
    )
    with pytest.raises(UserError, match="cannot spell"):
        bias_of(["jazz", "東京"], tokenizer)


def test_the_bonus_is_that_of_the_run(tmp_path):
    recogniser = tmp_path / "pack/model.sotto"
    assert find_bonus(recogniser) == PhraseBonus()
    (tmp_path / "stream").mkdir()
    (tmp_path / "stream/phrases.json").write_text('{"score": 1.5, "unknown_score": 3.0, "size_cost": 0.5}')
    assert find_bonus(recogniser) == PhraseBonus(1.5, 3.0, 0.5)
    for wrong in ("[]", '{"score": -1}', '{"scores": 1}', "", '{"score": "1"}'):
        (tmp_path / "stream/phrases.json").write_text(wrong)
        with pytest.raises(UserError, match="phrases.json"):
            find_bonus(recogniser)


def test_the_prefixes_are_those_of_the_run(tmp_path):
    recogniser = tmp_path / "pack/model.sotto"
    assert find_prefixes(recogniser) == {}
    (tmp_path / "stream").mkdir()
    (tmp_path / "stream/prefixes.json").write_text('{"contact": ["call", "text"], "song": []}')
    assert find_prefixes(recogniser) == {"contact": ["call", "text"], "song": []}
    for wrong in ("[]", '{"contact": 1}', '{"contact": [1]}', ""):
        (tmp_path / "stream/prefixes.json").write_text(wrong)
        with pytest.raises(UserError, match="prefixes.json"):
            find_prefixes(recogniser)


def test_phrases_count_after_their_words_alone(model_file):
    tokenizer, bonus = load_packed(model_file).tokenizer, PhraseBonus(1.0, 1.0, 0.0)
    trie = bias_of(["anna", "jazz"], tokenizer, bonus, after={"anna": frozenset({"call", "turn"})})

    def earned(text):
        node, sum_ = trie.start(), 0.0
        for token in tokenizer.encode(text):
            node, more = trie.step(node, token)
            sum_ += more
        return sum_ + trie.final(node)

    assert earned("call anna") == earned("turn anna") == len(tokenizer.encode("anna"))
    assert earned("anna") == earned("play anna") == 0 and earned("jazz") == len(tokenizer.encode("jazz"))


def test_phrases_are_heard_more_often(sotto, recordings, tmp_path):
    (tmp_path / "phrases.txt").write_text("kitchen\nanna\n")
    plain = sotto(recordings / "mono.wav")[1]
    biased = sotto(recordings / "mono.wav", "--phrases", tmp_path / "phrases.txt", "--phrase-score", 9)[1]
    assert biased.count("kitchen") + biased.count("anna") > plain.count("kitchen") + plain.count("anna")
