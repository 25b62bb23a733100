import urllib.request


def test_a_process_in_front_of_a_server_is_live_and_ready(door_url):
    for path in ("/live", "/ready"):
        with urllib.request.urlopen(door_url + path, timeout=60) as response:
            assert response.status == 200


def test_an_app_is_live_and_ready(app_client):
    client = app_client()
    assert client.get("/live").status_code == 200
    assert client.get("/ready").json()["ready"]
