"""In place of the suite's own, which its source distribution lacks: the broker runs already."""


class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port

    def stop(self):
        pass

    def dump_logs(self):
        pass


class SpawnedService:
    def __init__(self, *args, **kwargs):
        raise NotImplementedError("no broker is started here")
