FROM eclipse-temurin:21-jdk AS build
WORKDIR /workspace
COPY --link mvnw pom.xml ./
COPY .mvn .mvn
COPY src src
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN ./mvnw -B package | tee build.log
FROM eclipse-temurin:21-jre
ENV JAVA_OPTS="-Xms256m -Xmx512m -Dgreeting='hello there'"
COPY --from=0 /workspace/target/*.jar /app/
ENTRYPOINT exec java $JAVA_OPTS -jar /app/app.jar
