"""Templates that ask for a caption or a transcript of an image, of a video, or of a part of a video.

{object}          an object in the video, as annotated                    a red kite
{time}            a time, as clock or in seconds                          00:01:02.5    62.5 seconds
{start}, {end}    a span; in seconds, the unit is only after the end      00:00:03.0, 00:00:05.5    3.0, 5.5 seconds
"""

SHORT_CAPTION = (
    "Give me a short caption for this image.",
    "Caption this image in a sentence or two.",
    "Sum up the picture briefly.",
    "In a few words, what does this image show?",
    "Write one brief sentence about this photo.",
    "short caption please",
    "Briefly, what is in the image?",
    "What is the gist of this picture?",
    "Keep it short: describe the image.",
    "A quick description of the photo, please.",
    "Name the main content of this image in one line.",
)

LONG_CAPTION = (
    "Describe everything you can make out in this image.",
    "Write a thorough description of the image.",
    "Tell me about this picture in as much detail as you can.",
    "Give a full account of what this photo shows.",
    "I can't see the image. Describe it to me at length.",
    "Go through the image from foreground to background and describe each part.",
    "What does this image show? Be exhaustive.",
    "Write several sentences that describe the picture.",
    "Provide a rich, complete caption for this image.",
    "describe this image in depth",
    "Please caption the photo; leave no detail out.",
    "Explain in detail what is depicted in the image.",
    "Write a paragraph about this image, covering objects, colors, text and layout.",
    "Paint this image in words.",
    "detailed description of the picture",
    "Look closely at the photo and report all that you notice.",
    "Compose an extended caption for the image.",
    "How would you describe this picture to someone on the phone? Take your time.",
    "List and describe, in flowing text, the contents of the image.",
    "Give me the long version: what is going on in this image?",
    "What is there to see in this photo, down to the small things?",
    "Produce a long image description.",
    "Please write a comprehensive description of what you observe in the image.",
)

LONG_CAPTION_NO_POINTING = (
    "Describe this image at length, in text only, with no points.",
    "Write a detailed caption of the picture. Do not point at anything.",
    "Give a thorough description of the photo without marking places in it.",
    "Tell me everything about this image; leave out point coordinates.",
    "A long description of the image, please, and no pointing.",
)

VIDEO_MOTION_CAPTION = (
    "Describe how things move in this video.",
    "What motion takes place in the video?",
    "Write a caption about the movements in this clip.",
    "Focus on motion: what happens in the video?",
    "Who or what moves here, and in which way?",
    "Explain the motion of the camera and of the subjects.",
    "Tell me about every movement you notice in the video.",
    "Give a description of the video that is all about motion.",
    "How do the objects and people move over the course of the video?",
    "describe the motion",
)

VIDEO_OBJECT_CAPTION = (
    "Describe what {object} does in the video.",
    "Follow {object} through the video and tell me what happens to it.",
    "Write a caption of this video that is only about {object}.",
    "What can you say about {object} in this clip?",
    "Tell the story of the video from the side of {object}.",
    "Give a detailed account of {object} over the course of the video.",
    "Focus on {object}. What goes on?",
    "Look at {object} and describe its actions and surroundings.",
    "What happens with {object} from beginning to end?",
    "Caption this video with respect to {object}.",
)

VIDEO_TRANSCRIPT = (
    "Describe the video as if you were talking about it out loud.",
    "Talk me through this video.",
    "Say, in spoken language, what the video shows.",
    "Narrate what you see in the video.",
    "Give a spoken-style walk through the video.",
)

VIDEO_CLIP_CAPTION_START_END = (
    "Describe the video from {start} to {end}.",
    "What happens between {start} and {end}?",
    "Caption the part of the video that runs from {start} to {end}.",
    "Write a detailed description of the segment {start} to {end}.",
    "Tell me about everything that goes on from {start} until {end}.",
    "Consider only the time from {start} to {end}. What does the video show?",
    "For the interval {start} - {end}, describe the video.",
    "Between {start} and {end}, what can be seen?",
    "Give me a caption for {start} to {end}.",
    "Summarize in detail what takes place from {start} through {end}.",
    "I missed the part from {start} to {end}; what was in it?",
    "The clip begins at {start} and stops at {end}. Describe it.",
    "describe {start} to {end}",
    "Watch the video from {start} to {end} and write down what you see.",
    "What is shown in the stretch of video between {start} and {end}?",
    "Explain what the video shows, starting at {start} and ending at {end}.",
    "Please caption the clip that lies between {start} and {end}.",
    "Go to {start}, watch until {end}, and describe that part.",
    "Produce a description of the scene from {start} up to {end}.",
    "From {start} to {end}: what are the events?",
    "Only for {start} to {end}, give a thorough description.",
)

VIDEO_CLIP_TRANSCRIPT_START_END = (
    "Talk me through the video from {start} to {end}.",
    "Narrate the part between {start} and {end}.",
    "In spoken language, say what the video shows from {start} until {end}.",
    "Describe {start} to {end} as if you were talking about it out loud.",
    "Give a spoken-style account of the segment from {start} to {end}.",
)

VIDEO_FRAME_CAPTION_TIMESTAMP = (
    "Describe the frame at {time}.",
    "What does the video show at {time}?",
    "Write a detailed caption for the frame at {time}.",
    "Pause the video at {time}. What is in the picture?",
    "Tell me about everything visible at {time}.",
    "At {time}, what can be seen?",
    "Give a full description of the single frame at {time}.",
    "Look at the moment {time} and describe it.",
    "Caption the image that is on screen at {time}.",
    "What is there to see in the video at exactly {time}?",
    "frame caption at {time}",
    "Jump to {time} and describe what is on the screen.",
    "Please describe the still at {time} at length.",
)
