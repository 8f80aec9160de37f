"""Templates that ask to track things in a video.

    {label}           what to track                                         the dogs
    {fps}             positions per second in the answer                    2
    {input_points}    one thing at one time, as a points tag                <points coords="0.0 1 469 556">dog</points>

Without {fps} an answer has two positions per second. The last templates of a list describe the format of the answer.
"""

_TAG = '<tracks coords="..."> tag named after it'
_MOMENTS = "each moment as its seconds and then number, x and y of every object in sight"

VIDEO_POINT_TRACK_PER_FRAME = (
    "Track {label} at {fps} fps.",
    "Follow {label} through the video, {fps} points per second.",
    "Point to {label} in every frame, sampled at {fps} frames per second.",
    "Where is {label} over time? Give points at {fps} fps.",
    "At {fps} fps, show where {label} is for as long as it can be seen.",
    "Keep track of each {label} in the video; report positions {fps} times a second.",
    "Give me the tracks of {label} at a rate of {fps} per second.",
    "Watch {label} and mark the position {fps} times per second.",
    f"Track {{label}} at {{fps}} fps. Write a {_TAG}, {_MOMENTS}.",
    f"Follow {{label}}, {{fps}} moments a second, in the form of one {_TAG}: {_MOMENTS}.",
)

VIDEO_POINT_TRACK_PER_FRAME_DEFAULT_FPS = (
    "Track {label}.",
    "Track {label} through the video.",
    "Follow {label} from start to end.",
    "Where does {label} go? Point to it over time.",
    "Keep pointing to {label} for as long as it can be seen.",
    "Give me the tracks of {label} in this video.",
    "Watch {label} and mark where it is as the video goes on.",
    "Point to {label} all through the video.",
)

VIDEO_POINT_GROUND_START_END = (
    "Point to {label} where it first appears and where it is last seen.",
    "When and where does {label} enter and leave the video? Point.",
    "Give the first and the last point of {label}.",
    "Mark the start and the end of {label} in the video with points.",
    "For each {label}, point to its first and its last position.",
    f"First and last position of {{label}}, as a {_TAG}, {_MOMENTS}.",
    f"Show where {{label}} starts and ends. Write one {_TAG}: {_MOMENTS}.",
)

VIDEO_SINGLE_POINT_TRACK_PER_FRAME = (
    "Track the object at {input_points} with {fps} fps.",
    "Follow what is marked here through the rest of the video, {fps} points per second: {input_points}",
    "{input_points} Where does it go from there? Answer at {fps} fps.",
    "Starting from {input_points}, track this object at {fps} frames per second.",
    "Here is a point: {input_points}. Keep track of what it marks, {fps} times a second.",
    "Given {input_points}, show its later positions at {fps} fps.",
    "What I pointed to is {input_points}. Track it at a rate of {fps} per second.",
    "From the point {input_points} on, mark the same object {fps} times per second.",
    "Query: {input_points}\nRate: {fps} fps\nTrack it.",
    "At {fps} fps, point to the object of {input_points} for as long as it can be seen.",
    "Stay on the object that {input_points} marks and report where it is {fps} times a second.",
    "Continue this track at {fps} fps: {input_points}",
)
