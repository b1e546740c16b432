"""`seqpipe serve` under ten thousand bodies of all sorts, over real connections."""

import itertools
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
from fuzzed_bodies import requests
from running_server import serving
from served import png

COUNT, CLIENTS = 10_000, 8
MOST_MB = 450


def test_ten_thousand_bodies_of_all_sorts_give_no_answer_above_499_and_take_no_memory(finished):
    with serving(finished) as server:
        sent = requests(COUNT, seed=1)
        taking, statuses, faults = threading.Lock(), Counter(), []
        peak = 0.0

        def send() -> None:
            nonlocal peak
            with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as client:
                while True:
                    with taking:
                        some = list(itertools.islice(sent, 20))
                        peak = max(peak, psutil.Process(server.process.pid).memory_info().rss / 1e6)
                    if not some:
                        return
                    for path, kind, body in some:
                        answer = client.post(path, content=body, headers={"content-type": kind})
                        statuses[answer.status_code] += 1
                        if answer.status_code >= 500 or "Traceback" in answer.text:
                            faults.append((path, kind, body[:200], answer.status_code, answer.text[:300]))

        with ThreadPoolExecutor(CLIENTS) as pool:
            for one in [pool.submit(send) for _ in range(CLIENTS)]:
                one.result()
        assert faults == []
        assert sum(statuses.values()) == COUNT
        assert {200, 400, 413, 415, 422} <= set(statuses), statuses
        assert peak < MOST_MB
        assert server.predict(png()).status_code == 200
