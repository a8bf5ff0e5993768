"""Servers on this machine that speak the formats of Tiingo and Yahoo, and fail in the ways that servers do"""
import json
import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from zoneinfo import ZoneInfo


@dataclass
class Reply:
    "One answer"
    body:bytes=b''
    status:int=200
    headers:dict=field(default_factory=dict)
    cut:int|None=None      # Close the connection after so many bytes of the body
    announced:bool=True    # Say how long the body is?
    stall:Event|None=None  # Send nothing before this is set


class Wire:
    "Answers by path; a list is used up from the front, and its last answer stays"
    def __init__(self, answers):
        self.answers,self.seen,self.lock = answers,[],Lock()
        wire = self
        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'
            def log_message(self, *args): pass
            def do_GET(self): wire.answer(self)
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.server.server_port}'

    def paths(self): return [o[0] for o in self.seen]

    def reply_to(self, path, query, headers):
        with self.lock:
            self.seen.append((path, query, headers))
            found = self.answers.get(path, Reply(b'{"detail":"Not found."}', 404))
            if isinstance(found, list): found = found.pop(0) if len(found)>1 else found[0]
        return found(query) if callable(found) else found

    def answer(self, handler):
        parts = urlsplit(handler.path)
        reply = self.reply_to(parts.path, dict(parse_qsl(parts.query)), dict(handler.headers))
        if reply.stall: reply.stall.wait(30)
        try:
            handler.send_response(reply.status)
            for k,v in reply.headers.items(): handler.send_header(k, v)
            if reply.announced: handler.send_header('Content-Length', str(len(reply.body)))
            else: handler.send_header('Connection', 'close')
            handler.end_headers()
            handler.wfile.write(reply.body[:reply.cut])
            handler.wfile.flush()
        except OSError: pass # The client has gone
        if reply.cut is not None or not reply.announced:
            handler.close_connection = True
            try: handler.connection.shutdown(socket.SHUT_RDWR)
            except OSError: pass


@contextmanager
def serving(answers):
    "A `Wire` that is listening"
    wire = Wire(answers)
    thread = Thread(target=wire.server.serve_forever, kwargs=dict(poll_interval=.01), daemon=True)
    thread.start()
    try: yield wire
    finally:
        wire.server.shutdown()
        wire.server.server_close()


# ---- Tiingo

def record(day, close, paid=0., split=1., **changes):
    "A record of /tiingo/daily/<ticker>/prices, with the keys of the recorded one"
    return dict(date=f'{day}T00:00:00.000Z', close=close, high=close+1, low=close-1, open=close, volume=1000, adjClose=close,
        adjHigh=close+1, adjLow=close-1, adjOpen=close, adjVolume=1000, divCash=paid, splitFactor=split) | changes


def tiingo(ticker, *records, start='2004-11-18', end='2024-06-28'):
    "Both answers about a ticker, by path"
    meta = dict(ticker=ticker, name=f'{ticker} Trust', description='Invented.', startDate=start, endDate=end, exchangeCode='NYSE ARCA')
    path = f'/tiingo/daily/{ticker}'
    return {f'{path}/prices':Reply(json.dumps(records).encode()), path:Reply(json.dumps(meta).encode())}


# ---- Yahoo

NEW_YORK = ZoneInfo('America/New_York')


def at_open(day): return int(datetime.fromisoformat(f'{day} 09:30').replace(tzinfo=NEW_YORK).timestamp())


def chart(symbol, bars, dividends=(), splits=(), gains=(), currency='USD'):
    "An answer of /v8/finance/chart/<symbol>; `bars` are (day, open, high, low, close, adjusted close, volume)"
    day,*columns = zip(*bars)
    names = 'open', 'high', 'low', 'close', 'adjclose', 'volume'
    got = {k:list(v) for k,v in zip(names, columns)}
    adjusted = got.pop('adjclose')
    meta = dict(currency=currency, symbol=symbol, exchangeName='PCX', fullExchangeName='NYSEArca', instrumentType='ETF',
        firstTradeDate=728317800, regularMarketTime=at_open(day[-1]), hasPrePostMarketData=True, gmtoffset=-18000, timezone='EST',
        exchangeTimezoneName='America/New_York', regularMarketPrice=got['close'][-1], longName=f'{symbol} Trust', shortName=symbol,
        priceHint=2, dataGranularity='1d', range='', validRanges=['1d', '5d', '1mo', '3mo', '6mo', '1y', '2y', '5y', '10y', 'ytd', 'max'])
    period = dict(timezone='EST', start=0, end=0, gmtoffset=-18000)
    meta['currentTradingPeriod'] = dict(pre=period, regular=period, post=period)
    events = {}
    if dividends: events['dividends'] = {str(at_open(d)):dict(amount=v, date=at_open(d)) for d,v in dividends}
    if gains: events['capitalGains'] = {str(at_open(d)):dict(amount=v, date=at_open(d)) for d,v in gains}
    if splits:
        events['splits'] = {str(at_open(d)):dict(date=at_open(d), numerator=a, denominator=b, splitRatio=f'{a}:{b}') for d,a,b in splits}
    result = dict(meta=meta, timestamp=[at_open(d) for d in day], indicators=dict(quote=[got], adjclose=[dict(adjclose=adjusted)]))
    return json.dumps(dict(chart=dict(result=[result | (dict(events=events) if events else {})], error=None))).encode()


def no_chart(code, description): return json.dumps(dict(chart=dict(result=None, error=dict(code=code, description=description)))).encode()


@contextmanager
def yahoo_at(wire, folder):
    "Let yfinance, with the HTTP client it ships with, ask `wire` for everything that it would ask Yahoo"
    import yfinance as yf
    from curl_cffi import requests
    class Session(requests.Session):
        "Sends each request to this machine, whatever its host"
        def request(self, method, url, *args, **kwargs):
            parts = urlsplit(url)
            assert parts.hostname.endswith('.yahoo.com'), url
            return super().request(method, urlunsplit(('http', urlsplit(wire.url).netloc, *parts[2:])), *args, **kwargs)
    yf.set_tz_cache_location(str(folder))
    yfdata = yf.data.YfData(session=Session(impersonate='chrome'))
    try: yield
    finally:
        yfdata._cookie = yfdata._crumb = None
        yfdata._session.close()
