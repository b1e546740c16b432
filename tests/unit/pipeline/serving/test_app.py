"""What the server answers."""

import base64
import io
import threading

import pytest
from PIL import Image
from served import png

WHITE, BLACK = png(255), png(0)


def test_files_of_a_form_are_classified_with_their_names_the_most_probable_class_first(client):
    answer = client.post("/predict", files=[("file", ("snow.png", WHITE)), ("file", ("night.png", BLACK))])
    assert answer.status_code == 200
    assert answer.json() == {
        "model": {"name": "m", "version": "1"},
        "images": [
            {"name": "snow.png", "class": "light", "probability": 1.0, "probabilities": {"light": 1.0, "dark": 0.0}},
            {"name": "night.png", "class": "dark", "probability": 1.0, "probabilities": {"dark": 1.0, "light": 0.0}},
        ],
    }
    assert list(answer.json()["images"][0]["probabilities"]) == ["light", "dark"]


def test_base64_and_bodies_that_are_images_are_classified(client):
    for answer in (
        client.post("/predict", json={"image": base64.b64encode(WHITE).decode()}),
        client.post("/predict", content=WHITE, headers={"content-type": "image/png"}),
    ):
        assert [image["class"] for image in answer.json()["images"]] == ["light"]


def test_invocations_answers_as_mlflow_does(client):
    pixels = [[[[255, 255, 255]] * 32] * 32]
    expected = {"class": "light", "probability": 1.0, "probability_dark": 0.0, "probability_light": 1.0}
    for body in ({"inputs": pixels}, {"instances": pixels}):
        assert client.post("/invocations", json=body).json() == {"predictions": [expected]}


def test_version_says_which_model_run_and_commit(client):
    found = client.get("/version").json()
    assert found["model"] == {
        "name": "m", "version": "1", "aliases": ["champion"], "run_id": "r1", "architecture": "small",
        "classes": ["dark", "light"], "accuracy": 0.9, "commit": "c0ffee",
    }  # fmt: skip
    assert found["seqpipe"]


def test_health_is_for_supervisors(client):
    for path in ("/health", "/ping"):
        assert (client.get(path).status_code, client.get(path).json()) == (200, {"status": "ok"})


def test_bad_input_is_one_sentence(client):
    answer = client.post("/predict", content=b"no image", headers={"content-type": "image/png"})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/json")
    assert answer.json() == {"error": "the image: not a PNG, JPEG, WebP, BMP or GIF image"}


def test_other_paths_and_methods_are_told_where_to_look(client):
    assert client.get("/nothing").json() == {"error": "there is nothing at /nothing: /docs lists what there is"}
    answer = client.get("/predict")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {"error": "GET is not for /predict: /docs lists what there is"}
    assert client.get("/page/../app.py").status_code == 404


def test_a_body_past_its_bound_is_refused_whether_its_length_is_said_or_not(start):
    client = start(body_bytes=1000)
    said = client.post("/predict", content=b"x" * 1001, headers={"content-type": "image/png"})
    far = client.post("/predict", content=b"x" * 100_000, headers={"content-type": "image/png"})
    unsaid = client.post("/predict", content=iter([b"x" * 600] * 2), headers={"content-type": "image/png"})
    assert [one.status_code for one in (said, far, unsaid)] == [413] * 3
    assert said.json() == unsaid.json() == {"error": "the request is larger than 0 MB"}


def test_bodies_that_are_too_large_together_are_refused_for_the_moment(start):
    client = start(bodies_bytes=len(WHITE))
    assert client.post("/predict", content=WHITE, headers={"content-type": "image/png"}).status_code == 200
    answer = client.post("/predict", content=WHITE + b"x", headers={"content-type": "image/png"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    again = client.post("/predict", content=WHITE, headers={"content-type": "image/png"})
    assert again.status_code == 200, "what was held is given back"


def test_a_full_queue_is_429(start, model, monkeypatch):
    client = start(queued_images=1)
    go, began = threading.Event(), threading.Event()
    real = model.probabilities

    def slow(pixels):
        began.set()
        assert go.wait(10)
        return real(pixels)

    monkeypatch.setattr(model, "probabilities", slow)
    answers = []

    def ask():
        answers.append(client.post("/predict", content=WHITE, headers={"content-type": "image/png"}).status_code)

    first, second = threading.Thread(target=ask), threading.Thread(target=ask)
    first.start()
    assert began.wait(10)
    second.start()
    while "seqpipe_queued_images 1.0" not in client.get("/metrics").text:
        pass
    ask()
    go.set()
    first.join()
    second.join()
    assert answers == [429, 200, 200]


def test_a_fault_of_the_server_is_500_without_a_traceback_and_a_line_for_whoever_runs_it(
    client, model, reports, monkeypatch
):
    monkeypatch.setattr(model, "probabilities", lambda pixels: 1 / 0)
    answer = client.post("/predict", content=WHITE, headers={"content-type": "image/png"})
    assert answer.status_code == 500
    assert answer.json() == {"error": "a fault in the server, of which its own output tells more"}
    assert len(reports) == 1
    assert reports[0].startswith("fault in POST /predict: ZeroDivisionError: division by zero (test_app.py, line ")


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer"])
def test_without_the_token_nothing_of_the_model_is_told(start, given):
    client = start(token="0123456789abcdef")
    headers = {"authorization": given} if given else {}
    for method, path in (
        ("POST", "/predict"),
        ("POST", "/explain"),
        ("GET", "/version"),
        ("GET", "/metrics"),
        ("GET", "/x"),
    ):
        answer = client.request(method, path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "asks for its token" in answer.json()["error"]


def test_with_the_token_it_answers_and_the_page_and_health_need_none(start):
    client = start(token="0123456789abcdef")
    assert client.get("/version", headers={"Authorization": "bearer 0123456789abcdef"}).status_code == 200
    for path in ("/", "/docs", "/openapi.json", "/health", "/page/page.js"):
        assert client.get(path).status_code == 200


def test_an_explanation_says_where_covering_a_square_lowers_the_probability(client, model):
    image = Image.new("RGB", (32, 32), "black")
    image.paste("white", (0, 0, 8, 8))  # all that is light is in the corner
    file = io.BytesIO()
    image.save(file, "PNG")
    answer = client.post("/explain", files={"file": ("corner.png", file.getvalue())}).json()
    assert answer["method"] == "occlusion"
    light = answer["drops"]["light"]
    assert (len(light), len(light[0])) == (8, 8)
    assert light[0][0] == max(map(max, light)) > 0
    assert light[7][7] == pytest.approx(0), "black covered with black"
    assert answer["drops"]["dark"][0][0] == pytest.approx(-light[0][0])
    assert answer["image"]["class"] == "dark"
    assert Image.open(io.BytesIO(base64.b64decode(answer["seen"].partition(",")[2]))).size == (32, 32)
    assert sum(model.batches[1:]) == 32 + 32 + 24, "82, filled up"


def test_one_image_at_a_time_is_explained(client):
    answer = client.post("/explain", files=[("file", ("a.png", WHITE)), ("file", ("b.png", WHITE))])
    assert (answer.status_code, answer.json()) == (400, {"error": "one image at a time is explained, not 2"})


def test_the_figures_count_requests_batches_and_the_model(client):
    client.post("/predict", content=WHITE, headers={"content-type": "image/png"})
    client.post("/predict", content=b"", headers={"content-type": "image/png"})
    client.get("/some/path/nobody/knows")
    text = client.get("/metrics").text
    for line in (
        'seqpipe_requests_total{route="/predict",status="200"} 1.0',
        'seqpipe_requests_total{route="/predict",status="400"} 1.0',
        'seqpipe_requests_total{route="other",status="404"} 1.0',
        "seqpipe_batch_images_count 1.0",
        "seqpipe_queued_images 0.0",
    ):
        assert line in text.splitlines()
    assert "process_resident_memory_bytes" in text


def test_the_document_of_the_interface_is_openapi_and_names_every_way_to_send_images(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert set(document["paths"]) == {"/predict", "/invocations", "/explain", "/health", "/version", "/metrics"}
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json", "text/csv", "image/*"}


@pytest.mark.parametrize("path", ["/", "/docs", "/page/page.css", "/page/page.js", "/page/docs.js", "/page/icon.svg"])
def test_the_pages_need_nothing_from_elsewhere(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    text = answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "//" not in "".join(line for line in text.splitlines() if "src=" in line or "href=" in line)
    assert "https:" not in text
    assert "http:" not in text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_servers_beside_each_other_have_figures_of_their_own(start):
    one, other = start(), start()
    one.get("/version")
    assert 'route="/version"' not in other.get("/metrics").text
