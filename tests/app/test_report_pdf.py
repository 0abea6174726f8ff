"""The PDF of a report: what it says and to whom, what strangers' text can't do to it, what C2PA's signature covers.

Text is compared without its blanks, since lines are broken anywhere.
"""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import c2pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from app.problems import Problem
from app.report.blocks import Bullets, Cell, Column, Content, Fact, Facts, Figure, Run, Section, Table
from app.report.child import Request
from app.report.drawing import draw
from app.report.pdf import drawn
from app.report.signing import certificate_of
from das.cli import build_app
from das.errors import EvidenceError, SettingsError
from das.evidence.attached import attached
from das.evidence.certificate import Certificate
from das.evidence.credentials import ASSERTION, credentials_of, signed
from das.evidence.report import LIMITS
from das.evidence.seal import SigningKey, canonical, sealed
from tests.app.pdf_files import objects, pages, tags
from tests.das.credentials import chain

AT = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
DATA = canonical(sealed({"format": "das-evidence"}, None))
MOST = 2**20


def picture(side: int = 8, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (side, side // 2), (200, 30, 30)).save(data, kind)
    return data.getvalue()


def of(*titles: str, sentence: str = "A sentence.") -> Content:
    """A content whose table names these works."""
    rows = tuple((Cell((Run("1"),)), Cell((), picture="w"), Cell((Run(title),) * 5)) for title in titles)
    columns = (Column("Rank", 1, numeric=True), Column("", 2), Column("Work", 7))
    blocks = (
        Bullets(("One.", "Two.")),
        Figure("subject", "The picture", small=True),
        Facts((Fact("Prompt", (Run(sentence),)),)),
        Table("Works", columns, rows),
    )
    return Content("Report x", sentence, (), (Section("Works", blocks),), ("sha256:abc", "not signed"))


def squeezed(text: str) -> str:
    """Without what lines are broken at."""
    return "".join(text.split())


@pytest.fixture
def answered(ask, work_off):
    def answered(**fields) -> str:
        body = ask(**fields)
        work_off()
        return body["id"]

    return answered


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with chain.pem, key.pem and root.pem."""
    folder = tmp_path_factory.mktemp("certificate")
    certificates, key = chain()
    (folder / "chain.pem").write_bytes(certificates)
    (folder / "key.pem").write_bytes(key)
    (folder / "root.pem").write_bytes(b"-----BEGIN" + certificates.split(b"-----BEGIN")[2])
    return folder


def said(*arguments) -> str:
    done = CliRunner().invoke(build_app(), ["report", *map(str, arguments)])
    return done.output if done.exit_code == 0 else f"{done.exit_code} {done.exception}"


def test_it_says_what_the_page_says_and_carries_its_data(client, answered, tmp_path, monkeypatch):
    key = SigningKey.create(tmp_path / "key.pem")
    monkeypatch.setattr(client.app.state.service, "signing_key", key)
    job_id = answered(top_k="5", prompt="a cat, 猫")
    address = f"/v1/attributions/{job_id}/report"
    response = client.get(f"{address}.pdf")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/pdf"
    assert response.headers["content-disposition"] == f'attachment; filename="{job_id}-report.pdf"'
    assert client.get(f"{address}.pdf").content == response.content
    data = client.get(f"{address}.json").content
    assert attached(response.content, MOST) == data
    document = json.loads(data)
    told = pages(response.content)
    whole = squeezed(" ".join(told))
    report = document["report"]
    for sentence in (report["answer"]["summary"], *report["limits"], *report["answer"]["notes"], *LIMITS):
        assert squeezed(sentence) in whole
    for work in report["answer"]["works"]:
        assert squeezed(work["title"]) in whole
        assert work["sha256"] in whole
    assert "acat,⟨U+732B⟩" in whole
    for number, page in enumerate(told, 1):
        assert document["seal"]["digest"] in page
        assert f"signed with the key {key.public.id}; page {number} of {len(told)}" in page
    file = tmp_path / "report.pdf"
    file.write_bytes(response.content)
    verified = said("verify", file, "--key", tmp_path / "key.pem")
    assert document["seal"]["digest"] in verified
    assert "which you trust" in verified
    assert "The pages aren't signed" in verified
    page = client.get(f"/a/{job_id}").text
    assert f'href="{address}.pdf" download' in page


def test_it_can_be_read_out(client, answered):
    pdf = client.get(f"/v1/attributions/{answered(top_k='3')}/report.pdf").content
    kinds = tags(pdf)
    assert kinds[:2] == ["Document", "H1"]
    assert kinds.count("H2") >= 4
    assert kinds.count("Figure") == 1 + 3
    assert b"/Lang (en)" in pdf
    assert b"/Marked true" in pdf
    assert b"/Outlines" in pdf
    assert b"<pdfaid:part>3</pdfaid:part>" in b"".join(stream for _, stream in objects(pdf).values())
    assert pdf.count(b"/Alt ") == 1 + 3
    assert b"/Alt (The picture asked about)" in pdf


def test_without_an_answer_there_is_none(client, ask):
    response = client.get(f"/v1/attributions/{ask()['id']}/report.pdf")
    assert (response.status_code, response.json()["code"]) == (409, "conflict")


def test_a_stored_picture_that_is_damaged_is_left_out_of_every_report(client, answered, store):
    job_id = answered(top_k="2")
    store.blobs.put(job_id, b"\x89PNG\r\n\x1a\n and nothing that is one")
    address = f"/v1/attributions/{job_id}/report"
    told = client.get(f"{address}.json").json()["report"]["picture"]
    assert told["pixels"] is None
    assert len(told["sha256"]) == 64
    page = client.get(f"{address}.html").text
    assert "The picture is no longer kept." in page
    assert page.count("data:image/") == 2
    pdf = client.get(f"{address}.pdf").content
    assert "The picture is no longer kept." in pages(pdf)[0]
    assert tags(pdf).count("Figure") == 2


@pytest.mark.parametrize(
    "title",
    [
        "葛飾北斎 神奈川沖浪裏", "لوحة", "דוגמה", "🖼️👩‍🎨", "\x00\x07\x1b[31m", "\u202egnp.exe", "{nb}", "**a** __b__",
        "a) Tj ET (", "\\", "\ud800", "e\u0301", "<<>> endstream endobj", "x" * 10_000, "漢" * 10_000,
        "word " * 2_000, "", " ", "\n\n",
    ],
)  # fmt: skip
def test_no_title_breaks_it_or_vanishes(title):
    content = of(title, "the next one", sentence=f"Is this {title[:200]} here?")
    pdf = drawn(content, {"subject": picture(), "w": picture(kind="JPEG")}, DATA, AT)
    assert attached(pdf, MOST) == DATA
    whole = squeezed(" ".join(pages(pdf)))
    assert whole.count("thenextone") == 5
    if len(title) == 10_000:
        assert whole.count("…(10,000characters)") == 5
    for character in title[:20]:
        code = f"U+{ord(character):04X}"
        assert character.isspace() or character in whole or code in whole or title == "e\u0301", code
    assert ("⟨" in whole) == ("aren'tdrawn" in whole)


@settings(max_examples=40)
@given(st.text(st.characters(), max_size=300))
def test_no_text_breaks_it(text):
    pdf = drawn(of(text, sentence=text or "-"), {}, DATA, AT)
    assert attached(pdf, MOST) == DATA
    assert pages(pdf)


def test_a_thousand_works_take_their_pages():
    pdf = drawn(of(*(f"Work {number}." for number in range(1000))), {}, DATA, AT)
    told = pages(pdf)
    assert squeezed(" ".join(told)).count("Work999.") == 5
    assert all("Rank" in page for page in told)


def request(content: Content, **changes) -> Request:
    asked = Request(content, {}, DATA, AT, 1 << 30, 60, "sha256:abc", ("das-attribution", "1"))
    return replace(asked, **changes)


def test_a_process_draws_the_same_bytes():
    content = of("Wave")
    pictures = {"subject": picture(), "w": picture(kind="WEBP")}
    assert draw(request(content, pictures=pictures)) == drawn(content, pictures, DATA, AT)


def test_what_takes_too_long_or_too_much_is_ended():
    with pytest.raises(Problem) as slow:
        draw(request(of("Wave"), seconds=0))
    assert (slow.value.code, slow.value.headers) == ("busy", {"Retry-After": "30"})
    with pytest.raises(Problem) as large:
        draw(request(of("Wave"), pictures={"subject": picture(12_000)}, memory_bytes=300 << 20))
    assert large.value.code == "internal-error"


def test_what_another_program_wrote_over_is_refused():
    pdf = drawn(of("Wave"), {}, DATA, AT)
    with pytest.raises(EvidenceError, match="another program"):
        attached(pdf + b"1 0 obj\n<<>>\nendobj\n", MOST)
    with pytest.raises(EvidenceError, match="another program"):
        attached(b"%PDF-1.7\n%%EOF", MOST)
    with pytest.raises(EvidenceError, match="no report"):
        attached(pdf.replace(b"#2Fjson", b"#2Fabcd"), MOST)
    with pytest.raises(EvidenceError, match="too large"):
        attached(pdf, len(DATA) - 1)
    begin = pdf.index(b"stream\n", pdf.index(b"/Type /EmbeddedFile\n")) + 7
    with pytest.raises(EvidenceError, match="damaged"):
        attached(pdf[: begin + 4] + b"\xff\xff\xff\xff" + pdf[begin + 8 :], MOST)


def test_c2pa_covers_every_byte_and_names_the_report(client, answered, files, tmp_path, monkeypatch):
    certificate = Certificate.read(files / "chain.pem", files / "key.pem")
    monkeypatch.setattr(client.app.state.service, "certificate", certificate)
    job_id = answered(top_k="3")
    pdf = client.get(f"/v1/attributions/{job_id}/report.pdf").content
    document = client.get(f"/v1/attributions/{job_id}/report.json").json()
    assert json.loads(attached(pdf, MOST)) == document
    reader = c2pa.Reader("application/pdf", io.BytesIO(pdf))
    assert reader.get_validation_state() == "Valid"
    asserted = {one["label"]: one["data"] for one in reader.get_active_manifest()["assertions"]}
    assert asserted[ASSERTION] == {"digest": document["seal"]["digest"]}
    file = tmp_path / "report.pdf"
    file.write_bytes(pdf)
    assert "as signer of DAS tests signed it with C2PA, whoever that is" in said("verify", file)
    assert "C2PA, which you trust" in said("verify", file, "--trust", files / "root.pem")
    # A page that was changed, and the report inside left alone.
    page = pdf.index(b"stream", pdf.index(b"/Contents")) + 12
    changed = pdf[:page] + bytes([pdf[page] ^ 1]) + pdf[page + 1 :]
    file.write_bytes(changed)
    assert "isn't as it was signed with C2PA" in said("verify", file)
    assert attached(changed, MOST) == attached(pdf, MOST)


def test_whom_nobody_trusts_and_what_is_of_another_report_is_told(files, tmp_path):
    certificate = Certificate.read(files / "chain.pem", files / "key.pem")
    plain = drawn(of("Wave"), {}, DATA, AT)
    file = tmp_path / "report.pdf"
    file.write_bytes(signed(plain, "A report", "sha256:other", ("das-attribution", "1"), certificate))
    assert "that of another report" in said("verify", file)
    file.write_bytes(signed(plain, "A report", json.loads(DATA)["seal"]["digest"], ("das", "1"), certificate))
    assert "signer of DAS tests signed it" in said("verify", file)
    chain.cache_clear()
    other = b"-----BEGIN" + chain()[0].split(b"-----BEGIN")[2]
    (tmp_path / "others.pem").write_bytes(other)
    assert "isn't one that --trust leads to" in said("verify", file, "--trust", tmp_path / "others.pem")
    (tmp_path / "none.pem").write_text("nothing")
    assert "2 " not in said("verify", file)
    assert said("verify", file, "--trust", tmp_path / "none.pem").startswith("1 ")
    assert "can't be read" in said("verify", file, "--trust", tmp_path / "nowhere.pem")
    file.write_bytes(plain)
    assert credentials_of(plain) is None
    assert "isn't signed with C2PA" in said("verify", file, "--trust", tmp_path / "others.pem")
    file.write_bytes(DATA)
    assert "--trust is for a PDF" in said("verify", file, "--trust", tmp_path / "others.pem")


def test_a_certificate_is_tried_when_the_service_starts(files, tmp_path, settings):
    def of(**files_named) -> Certificate | None:
        return certificate_of(settings.model_copy(update=files_named))

    assert of() is None
    whole = {"c2pa_certificate_file": files / "chain.pem", "c2pa_key_file": files / "key.pem"}
    assert of(**whole) == Certificate.read(files / "chain.pem", files / "key.pem")
    with pytest.raises(SettingsError, match="DAS_C2PA_KEY_FILE"):
        of(c2pa_certificate_file=files / "chain.pem")
    # A certificate authority's own certificate isn't one to sign documents with.
    chain.cache_clear()
    others = tmp_path / "other.pem"
    others.write_bytes(chain()[1])
    with pytest.raises(EvidenceError, match="isn't the key of the first certificate"):
        of(**whole | {"c2pa_key_file": others})
    with pytest.raises(EvidenceError, match="no certificates in PEM"):
        of(**whole | {"c2pa_certificate_file": files / "key.pem"})
    with pytest.raises(EvidenceError, match="no private key in PEM"):
        of(**whole | {"c2pa_key_file": files / "chain.pem"})
    with pytest.raises(EvidenceError, match="can't be read"):
        of(**whole | {"c2pa_key_file": tmp_path / "nowhere.pem"})
    assert "PRIVATE" not in repr(Certificate.read(files / "chain.pem", files / "key.pem"))
