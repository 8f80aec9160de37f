"""Templates that ask about {label} in several images. {images} is "all images" or a list, "image_1, image_3".

In {images}, point to {label}.    ->    In image_1, image_3, point to cats.
"""

MULTI_IMAGE_POINTING = (
    "In {images}, point to {label}.",
    "Point to every {label} in {images}.",
    "Point out {label}. Look in {images}.",
    "Find {label} in {images} and mark each with a point.",
    "Where is {label} in {images}?",
    "Look at {images} and point to all {label} there.",
    "Locate {label} in {images}.",
    "Give the points of {label} for {images}.",
    "Search {images} for {label} and point to what you find.",
    "Show me {label} in {images} by pointing.",
    "Put a point on each {label} across {images}.",
)

MULTI_IMAGE_POINT_THEN_COUNT = (
    "Point to {label} in {images}, then count them.",
    "How many {label} are there in {images}? Point to each first.",
    "Mark every {label} in {images} and give the total.",
    "Find {label} in {images}. How many are there altogether?",
    "Go over {images}, point to {label} and tell me their number.",
    "Point out {label} across {images} and add them up.",
    "For {images}: point to all {label} and report the count.",
    "Locate each {label} in {images} and count as you go.",
    "In {images}, point at {label}; how many did you find?",
    "First show me {label} in {images}, then say how many there are.",
    "Put points on {label} in {images} and end with the count.",
    "What do you get when you point to and count the {label} in {images}?",
    "I need the points of {label} in {images} and their sum.",
    "Look through {images} for {label}, pointing and counting.",
)

MULTI_IMAGE_COUNT_THEN_POINT = (
    "How many {label} are there in {images}? Then point to them.",
    "Count {label} in {images} first, and point to each after.",
    "Give the total of {label} in {images}, followed by their points.",
    "In {images}, say how many {label} there are, then show where.",
    "Tell me the number of {label} across {images} and then point them out.",
    "For {images}: the count of {label}, then the points.",
    "Start with the number of {label} in {images} and point to all of them next.",
    "State how many {label} {images} have in total and mark each.",
    "What is the count of {label} in {images}? Show them with points afterwards.",
)

MULTI_IMAGE_COUNTING = (
    "How many {label} are there in {images}? Give the number alone.",
    "Count {label} in {images} without pointing.",
    "Just the number of {label} in {images}, please.",
    "What is the total of {label} across {images}? One number.",
    "In {images}, how many {label} do you see? Do not point.",
    "Only count: {label} in {images}.",
    "Add up the {label} in {images} and reply with the sum.",
    "Number of {label} in {images}, no points?",
    "For {images}, return the count of {label} and nothing else.",
)
