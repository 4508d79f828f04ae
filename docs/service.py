"""A web service that finds objects in pictures: uvicorn service:app, then curl -F picture=@photo.jpg localhost:8000.

Needs `pip install fastapi uvicorn python-multipart`.
"""

from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, UploadFile

from inception_rcnn import Detector, ImageError, read_image


@asynccontextmanager
async def lifespan(app: FastAPI):
    with Detector.load("default", score_threshold=0.3) as app.state.detector:  # one detector for all threads
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/")
def detect(picture: UploadFile) -> list[dict]:  # a plain `def`: FastAPI runs it in its thread pool
    try:
        image = read_image(picture.file, max_pixels=50_000_000)
    except ImageError as error:
        raise HTTPException(422, error.reason) from error
    return [{"name": one.finest_name, "score": one.score, "box": one.box} for one in app.state.detector(image)]
